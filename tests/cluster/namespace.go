package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Each node has a network namespace, and, if it runs pods, a mount namespace.
// They are held by mounts on the files below, and those go with the folder: a
// rule that needs neither /run/netns nor a process that must not die.
func (c *cluster) netns(i int) string { return c.path("ns", "net-"+nodeName(i)) }
func (c *cluster) mntns(i int) string { return c.path("ns", "mnt-"+nodeName(i)) }

// privatePaths are where containerd, the CNI plugins and the kubelet keep
// things and can't be told otherwise. In a node's mount namespace they are
// folders of that node, so nodes and clusters don't meet there, and nothing is
// left when they end. (That the kubelet listens for device plugins below
// /var/lib/kubelet, whatever its --root-dir, is why this exists.)
var privatePaths = []string{"/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers"}

func (c *cluster) createNamespaces() error {
	dir := c.path("ns")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// A file system of its own, private: a mount namespace can't be held by a
	// mount that would propagate into it.
	if err := unix.Mount("namespaces", dir, "tmpfs", 0, "mode=755,size=64k"); err != nil {
		return err
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, i := range c.nodes() {
		if err := holdNamespace(c.netns(i), "net", func() error { return unix.Unshare(unix.CLONE_NEWNET) }); err != nil {
			return fmt.Errorf("network namespace of %s: %w", nodeName(i), err)
		}
		if c.Options.ControlPlaneOnly {
			continue
		}
		if err := holdNamespace(c.mntns(i), "mnt", func() error { return c.unshareMounts(i) }); err != nil {
			return fmt.Errorf("mount namespace of %s: %w", nodeName(i), err)
		}
	}
	return nil
}

// unshareMounts gives the calling thread a node's view of the files.
func (c *cluster) unshareMounts(i int) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	// New mounts of the machine come in, none go out.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	// The copies of what holds other clusters' namespaces would keep those
	// alive for as long as this one lasts.
	if err := unmountBelow(stateRoot()); err != nil {
		return err
	}
	for _, path := range privatePaths {
		own := filepath.Join(c.nodeDir(i), "private", path)
		for _, dir := range []string{path, own} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// holdNamespace has a thread make a namespace and mounts it on a file.
func holdNamespace(file, kind string, unshare func() error) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	made, held := make(chan error), make(chan struct{})
	defer close(held)
	thread := 0
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		thread = unix.Gettid()
		made <- unshare()
		<-held
	}()
	if err := <-made; err != nil {
		return err
	}
	// From outside: a mount namespace can't hold itself.
	return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/%s", thread, kind), file, "", unix.MS_BIND, "")
}

// enterNamespaces moves the calling thread, which must be locked.
func enterNamespaces(net, mnt string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	// Threads share a working directory unless told otherwise, and one that
	// does can't change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	for _, ns := range []struct {
		file string
		kind int
	}{{net, unix.CLONE_NEWNET}, {mnt, unix.CLONE_NEWNS}} {
		if ns.file == "" {
			continue
		}
		f, err := os.Open(ns.file)
		if err != nil {
			return err
		}
		err = unix.Setns(int(f.Fd()), ns.kind)
		f.Close()
		if err != nil {
			return fmt.Errorf("entering %s: %w", ns.file, err)
		}
	}
	return unix.Chdir(dir) // a change of mounts leads to the root
}
