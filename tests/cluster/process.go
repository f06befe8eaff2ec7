package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is one program of the cluster: its log is log/<name>, its record
// run/<name>.
type process struct {
	name   string
	node   int
	argv   []string
	inner  bool       // argv[0] is a command of this program
	mounts bool       // sees the node's own mounts
	extra  []*os.File // file descriptors from 3
}

// identity tells a process from a later one with the same number.
type identity struct {
	pid   int
	start string // in clock ticks since boot
}

func (id identity) String() string { return fmt.Sprintf("%d %s", id.pid, id.start) }

func lookProcess(pid int) (identity, error) {
	id, state, err := readProcess(pid)
	if err == nil && (state == "Z" || state == "X") {
		return identity{}, os.ErrProcessDone
	}
	return id, err
}

func readProcess(pid int) (id identity, state string, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return identity{}, "", err
	}
	// The second field, the name, is in brackets and may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return identity{pid, fields[19]}, fields[0], nil
}

// record returns what is recorded of a process, and its number.
func (c *cluster) record(name string) (string, int) {
	data, err := os.ReadFile(c.path("run", name))
	if err != nil {
		return "", 0
	}
	pid, _ := strconv.Atoi(strings.SplitN(string(data), " ", 2)[0])
	return string(data), pid
}

// running returns the number of the recorded process, or 0 if it is gone.
func (c *cluster) running(name string) int {
	record, pid := c.record(name)
	if id, err := lookProcess(pid); err != nil || id.String() != record {
		return 0
	}
	return pid
}

// letGo waits until a process that was killed holds nothing any more: its
// first thread is a zombie while others still have its sockets.
func (c *cluster) letGo(name string) {
	record, pid := c.record(name)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		id, _, err := readProcess(pid)
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || id.String() != record || len(threads) <= 1 {
			return
		}
	}
}

// start starts a process unless it runs, and says whether it did.
func (c *cluster) start(p process) (bool, error) {
	if c.running(p.name) != 0 {
		return false, nil
	}
	c.letGo(p.name)
	os.Remove(c.path("run", p.name))
	log, err := os.OpenFile(c.log(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return false, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	argv := p.argv
	if p.inner {
		argv = append([]string{self}, argv...)
	}
	enter := []string{"enter", "--net", c.netns(p.node), "--procs", c.daemonProcs(), "--record", c.path("run", p.name)}
	if p.mounts {
		enter = append(enter, "--mnt", c.mntns(p.node))
	}
	cmd := exec.Command(self, append(append(enter, "--"), argv...)...)
	cmd.Dir = c.dir
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, p.extra
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // outlives us and our terminal
	if err := cmd.Start(); err != nil {
		return false, err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() // or, while we last, a dead one would look alive
		close(ended)
	}()
	for c.running(p.name) == 0 {
		select {
		case <-ended:
			return false, c.failure(p.name, errors.New("ended at once"))
		case <-time.After(time.Millisecond):
		}
	}
	c.started.Store(p.name, true)
	return true, nil
}

// errVanished says that a process ended which an earlier command started: it
// was still dying when this one looked.
var errVanished = errors.New("a process ended meanwhile")

// log is where a process writes, or, for the one component that is a pod, the
// kubelet for it.
func (c *cluster) log(name string) string {
	if pods, _ := filepath.Glob(c.path(nodeName(1), "pod-logs", "kube-system_"+name+"-*", name, "*.log")); len(pods) > 0 {
		return pods[len(pods)-1]
	}
	return c.path("log", name)
}

// patience is for machines that do much else; a process that ends is noticed
// at once.
const patience = 5 * time.Minute

// await waits until probe succeeds. It gives up when one of the processes it
// depends on is gone, or when time is over: then the blame is on one of them.
func (c *cluster) await(ctx context.Context, what string, limit time.Duration, blame string, needs []string, probe func(context.Context) error) error {
	if probe(ctx) == nil {
		return nil
	}
	c.say("waiting for %s", what)
	begin := time.Now()
	for {
		time.Sleep(100 * time.Millisecond)
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := probe(attempt)
		cancel()
		if err == nil {
			return nil
		}
		for _, name := range needs {
			if c.running(name) == 0 {
				if _, ours := c.started.Load(name); !ours {
					return errVanished
				}
				return c.failure(name, errors.New("ended"))
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(begin) > limit {
			return c.failure(blame, fmt.Errorf("no %s after %s: %w", what, limit, err))
		}
	}
}

// failure names the component and shows the end of its log.
func (c *cluster) failure(name string, err error) error {
	const lines = 15
	log, _ := os.ReadFile(c.log(name))
	tail := strings.Split(strings.TrimSpace(string(log)), "\n")
	tail = tail[max(0, len(tail)-lines):]
	for i, line := range tail {
		if len(line) > 400 {
			tail[i] = line[:400] + "…"
		}
	}
	return fmt.Errorf("%s: %w; the end of %s:\n  %s", name, err, c.log(name), strings.Join(tail, "\n  "))
}

// recorded lists the names of all processes ever started.
func (c *cluster) recorded() []string {
	var names []string
	files, _ := filepath.Glob(c.path("run", "*"))
	for _, file := range files {
		names = append(names, filepath.Base(file))
	}
	return names
}
