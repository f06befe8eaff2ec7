package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

func down(_ context.Context, args []string) error {
	name, _ := splitName(args)
	c, err := openCluster(name)
	if err != nil {
		return err
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	defer os.Remove(c.dir + ".lock")
	if err := c.destroy(); err != nil {
		return err
	}
	c.say("down")
	return nil
}

// destroy asks nobody's cooperation and trusts no record, so it works the
// same on a healthy cluster and on what a SIGKILL left of one.
func (c *cluster) destroy() error {
	if err := c.killAll(); err != nil {
		return err
	}
	if err := c.removeCgroups(); err != nil {
		return fmt.Errorf("removing cgroups: %w", err)
	}
	c.removeStrays()
	if err := unmountBelow(c.dir); err != nil {
		return err
	}
	c.state = state{}
	return os.RemoveAll(c.dir)
}

// removeStrays removes the files that the parts keep outside our folder and
// take no setting for.
func (c *cluster) removeStrays() {
	// containerd's shims listen below /run/containerd/s; the bundle has the address.
	addresses, _ := filepath.Glob(c.path("node-*", "containerd", "state", "io.containerd.runtime.v2.task", "k8s.io", "*", "address"))
	for _, file := range addresses {
		if address, err := os.ReadFile(file); err == nil {
			os.Remove(strings.TrimPrefix(string(address), "unix://"))
		}
	}
	// The CNI library caches results by network name.
	cached, _ := filepath.Glob("/var/lib/cni/results/" + c.cniNetwork() + "-*")
	for _, file := range cached {
		os.Remove(file)
	}
	// The kubelet links logs into /var/log/containers.
	links, _ := filepath.Glob("/var/log/containers/*.log")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, c.dir+"/") {
			os.Remove(link)
		}
	}
	// Empty ones, that is: another containerd may use them.
	for _, dir := range []string{"/run/containerd/s", "/run/containerd", "/var/lib/cni/results", "/var/lib/cni", "/var/log/containers"} {
		os.Remove(dir)
	}
}

// unmountBelow detaches every mount below dir, the youngest first, and proves
// that none is left: what follows deletes files.
func unmountBelow(dir string) error {
	for range 5 {
		mounts, err := mountsBelow(dir)
		if err != nil || len(mounts) == 0 {
			return err
		}
		for _, m := range mounts {
			unix.Unmount(m, unix.MNT_DETACH)
		}
	}
	mounts, err := mountsBelow(dir)
	if err == nil && len(mounts) > 0 {
		err = fmt.Errorf("can't unmount %s", strings.Join(mounts, ", "))
	}
	return err
}

func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mounts []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // an overlay lists all its layers
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		path := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if strings.HasPrefix(path, dir+"/") {
			mounts = append(mounts, path)
		}
	}
	sort.SliceStable(mounts, func(i, j int) bool { return len(mounts[i]) > len(mounts[j]) })
	return mounts, lines.Err()
}
