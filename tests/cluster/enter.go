package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// enter becomes another program inside a cgroup and namespaces. It writes its
// own process record first: were that left to the starter, one that is killed
// in between would leave a process nobody knows.
//
// ("ip netns exec" would also remount /sys and so hide the cgroups.)
func enter(_ context.Context, args []string) error {
	f := flag.NewFlagSet("enter", flag.ContinueOnError)
	netns := f.String("net", "", "")
	mntns := f.String("mnt", "", "")
	procs := f.String("procs", "", "")
	record := f.String("record", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	argv := f.Args()
	if len(argv) == 0 {
		return errors.New("no command")
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	if *procs != "" {
		if err := os.WriteFile(*procs, []byte(fmt.Sprint(os.Getpid())), 0); err != nil {
			return err
		}
	}
	if *record != "" {
		p, err := lookProcess(os.Getpid())
		if err != nil {
			return err
		}
		if err := writeFile(*record, p.String()); err != nil {
			return err
		}
	}
	runtime.LockOSThread() // exec keeps the namespaces of the calling thread
	if err := enterNamespaces(*netns, *mntns); err != nil {
		return err
	}
	return syscall.Exec(program, argv, os.Environ())
}

// execInside runs a user's command in the network of a node.
func execInside(ctx context.Context, args []string) error {
	name, rest := splitName(args)
	f := flag.NewFlagSet("cluster exec NAME", flag.ContinueOnError)
	node := f.String("node", nodeName(1), "")
	if err := f.Parse(rest); err != nil {
		return err
	}
	c, err := openRunning(name)
	if err != nil {
		return err
	}
	os.Setenv("KUBECONFIG", c.kubeconfig("admin"))
	os.Setenv("PATH", c.path("bin")+":"+os.Getenv("PATH"))
	return enter(ctx, append([]string{"--net", c.path("ns", "net-"+filepath.Base(*node)), "--"}, f.Args()...))
}

// inside runs a command in the network of a node and returns what it printed.
func (c *cluster) inside(ctx context.Context, node int, stdin string, argv ...string) (string, error) {
	args := append([]string{"enter", "--net", c.netns(node), "--"}, argv...)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// forward runs inside the cluster's network and serves a listener that was
// opened outside (file descriptor 3): the one way in.
func forward(_ context.Context, args []string) error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	for {
		in, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			out, err := net.Dial("tcp", args[0])
			if err != nil {
				in.Close()
				return
			}
			go pipe(in, out)
			pipe(out, in)
		}()
	}
}

// pipe copies one direction and passes on its end.
func pipe(to, from net.Conn) {
	io.Copy(to, from)
	to.(*net.TCPConn).CloseWrite()
	from.(*net.TCPConn).CloseRead()
}

// lookup asks the cluster's DNS for one name. It runs inside.
func lookup(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, dnsIP+":53")
	}}
	addresses, err := r.LookupHost(ctx, args[0])
	if err == nil {
		fmt.Println(strings.Join(addresses, "\n"))
	}
	return err
}
