package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies are the places that can hold a cgroup: one with cgroup v2, one
// a controller with v1.
func hierarchies() (dirs []string, v2 bool) {
	if exists(filepath.Join(cgroupRoot, "cgroup.controllers")) {
		return []string{cgroupRoot}, true
	}
	entries, _ := os.ReadDir(cgroupRoot)
	for _, e := range entries {
		dir := filepath.Join(cgroupRoot, e.Name())
		if e.IsDir() && exists(filepath.Join(dir, "cgroup.procs")) { // links are aliases
			dirs = append(dirs, dir)
		}
	}
	return dirs, false
}

func (c *cluster) cgroup() string { return "modelwright-" + c.name }

// daemonProcs is the file that takes our processes into a cgroup of ours.
// Children inherit it, so "down" finds a process even when its record and its
// parents are gone. With v1 the one hierarchy is enough to find them, and the
// machine's accounting of the others is not evaded.
func (c *cluster) daemonProcs() string {
	dirs, v2 := hierarchies()
	dir := dirs[0]
	if !v2 {
		dir = filepath.Join(cgroupRoot, "pids")
	}
	return filepath.Join(dir, c.cgroup(), "daemons", "cgroup.procs")
}

// createCgroups makes the cgroups of the daemons and of each node's pods.
func (c *cluster) createCgroups() error {
	dirs, v2 := hierarchies()
	if len(dirs) == 0 {
		return fmt.Errorf("no cgroups below %s", cgroupRoot)
	}
	children := []string{"daemons"}
	for _, i := range c.nodes() {
		children = append(children, nodeName(i))
	}
	for _, root := range dirs {
		parent := filepath.Join(root, c.cgroup())
		if err := makeCgroup(root, parent, v2); err != nil {
			return err
		}
		for _, child := range children {
			if err := makeCgroup(parent, filepath.Join(parent, child), v2); err != nil {
				return err
			}
		}
	}
	return nil
}

func makeCgroup(parent, dir string, v2 bool) error {
	if v2 {
		available, _ := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		for _, controller := range strings.Fields(string(available)) {
			// One at a time: a controller that can't be had is the kubelet's to judge.
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if v2 {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		// A v1 cpuset starts empty and takes no process until it is filled.
		if value, err := os.ReadFile(filepath.Join(parent, file)); err == nil {
			if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// trees lists our cgroups, parents first.
func (c *cluster) trees() (dirs []string) {
	roots, _ := hierarchies()
	for _, root := range roots {
		filepath.WalkDir(filepath.Join(root, c.cgroup()), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	return dirs
}

// members lists the processes in our cgroups: the daemons, the shims and the
// containers.
func (c *cluster) members() map[int]bool {
	pids := map[int]bool{}
	for _, dir := range c.trees() {
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, field := range strings.Fields(string(procs)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids[pid] = true
			}
		}
	}
	return pids
}

// killAll ends every process of the cluster. Those that start others may be
// faster than one round, so it looks again until there is none.
func (c *cluster) killAll() error {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		pids := c.members()
		for pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Since(begin) > 2*time.Minute {
			return fmt.Errorf("processes that do not end: %v", pids)
		}
	}
}

// removeCgroups removes the empty trees, children first. The kernel may need
// a moment after the last process.
func (c *cluster) removeCgroups() error {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var err error
		dirs := c.trees()
		if len(dirs) == 0 {
			return nil
		}
		for i := len(dirs) - 1; i >= 0; i-- {
			err = os.Remove(dirs[i])
		}
		if time.Since(begin) > time.Minute {
			return err
		}
	}
}
