package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// realGateway is the nodes' bridge in the range of pods that are processes.
const realGateway = "10.245.0.1"

// realAddress is that of the pod with this number, from 1.
func realAddress(i int) string { return fmt.Sprintf("10.245.%d.%d", (i+1)/256, (i+1)%256) }

// A realNetwork is a network namespace that hangs on the nodes' bridge.
type realNetwork struct {
	ip, link string
	ns       *os.File // holds it
}

func newRealNetwork(number int) *realNetwork {
	return &realNetwork{ip: realAddress(number), link: fmt.Sprintf("pod%d", number)}
}

// path leads to the namespace, for other processes too.
func (n *realNetwork) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.ns.Fd()) }

func (n *realNetwork) create(ctx context.Context) (err error) {
	if n.ns == nil {
		if n.ns, err = openNetwork(); err != nil {
			return err
		}
	}
	exec.CommandContext(ctx, "ip", "link", "del", n.link).Run() // of a start that failed half-way
	outside := fmt.Sprintf("link add %s type veth peer name eth0 netns %s\nlink set %s master nodes up\n", n.link, n.path(), n.link)
	inside := fmt.Sprintf("link set lo up\naddr add %s/16 dev eth0\nlink set eth0 up\nroute add default via %s\n", n.ip, realGateway)
	if err := batch(exec.CommandContext(ctx, "ip", "-batch", "-"), outside); err != nil {
		return err
	}
	return batch(exec.CommandContext(ctx, "/proc/self/exe", "enter", "--net", n.path(), "--", "ip", "-batch", "-"), inside)
}

func batch(cmd *exec.Cmd, plan string) error {
	cmd.Stdin = strings.NewReader(plan)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// remove lets it go: it ends with its last process, and the link with it.
func (n *realNetwork) remove() {
	if n.ns != nil {
		exec.Command("ip", "link", "del", n.link).Run()
		n.ns.Close()
	}
}

// openNetwork has a thread make a namespace, and keeps that open.
func openNetwork() (file *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			file, err = os.Open("/proc/thread-self/ns/net")
		}
	}()
	<-done
	return file, err
}
