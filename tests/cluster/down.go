package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
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
// same on a healthy cluster and on what a SIGKILL left of one. The mounts of
// volumes and containers are in the nodes' mount namespaces and go with them;
// what deletes the folder can't see them, let alone what is mounted there.
func (c *cluster) destroy() error {
	if err := c.killAll(); err != nil {
		return err
	}
	if err := c.removeCgroups(); err != nil {
		return fmt.Errorf("removing cgroups: %w", err)
	}
	if err := unmountBelow(c.dir); err != nil {
		return err
	}
	c.state = state{}
	return os.RemoveAll(c.dir)
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
	f, err := os.Open("/proc/thread-self/mountinfo")
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
