package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

const (
	defaultName = "modelwright"
	podNetwork  = "10.244.0.0/16"
	serviceIP   = "10.96.0.1"
	dnsIP       = "10.96.0.10"
)

// A cluster is a name and the folder that holds all it has: certificates,
// data, logs, process records, network namespaces and every mount. Whatever
// is not below that folder is below the cgroup of the same name, so that
// "down" can clean up without knowing what happened before.
type cluster struct {
	name    string
	dir     string
	started sync.Map // names of the processes that this command started
	state
}

// state is what a later invocation has to know. It is written last, when the
// networks exist: a folder without it is the remains of an interrupted start.
type state struct {
	Options options
	Port    int    // of the API server, on 127.0.0.1 here and inside alike
	Boot    string // network namespaces do not survive a reboot
}

// namePattern keeps names usable as folder, cgroup and CNI network names, and
// socket paths below the kernel's 108 bytes.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,23}$`)

func openCluster(name string) (*cluster, error) {
	if !namePattern.MatchString(name) {
		return nil, fmt.Errorf("name %q: want at most 24 of a-z, 0-9 and '-', a letter first", name)
	}
	c := &cluster{name: name, dir: filepath.Join(stateRoot(), name)}
	data, err := os.ReadFile(c.path("state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	// An unreadable state is no state: up starts anew, down still cleans.
	_ = json.Unmarshal(data, &c.state)
	return c, nil
}

// openRunning is openCluster for the commands that need one that was started.
func openRunning(name string) (*cluster, error) {
	c, err := openCluster(name)
	if err == nil && c.Port == 0 {
		err = fmt.Errorf("there is no cluster %q: make cluster-up NAME=%s", name, name)
	}
	return c, err
}

func stateRoot() string {
	if dir := os.Getenv("MODELWRIGHT_STATE"); dir != "" {
		return dir
	}
	return "/var/lib/modelwright-cluster"
}

func (c *cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

func (c *cluster) save() error {
	data, err := json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(c.path("state.json"), string(data))
}

// say reports progress on standard error; standard output is for results.
func (c *cluster) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "cluster %s: %s\n", c.name, fmt.Sprintf(format, args...))
}

// lock keeps two invocations off one cluster. The file goes with the cluster,
// so the lock counts only if the path still leads to the locked file.
func (c *cluster) lock() (unlock func(), err error) {
	if err := os.MkdirAll(stateRoot(), 0o755); err != nil {
		return nil, err
	}
	path := c.dir + ".lock"
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			c.say("waiting for another command on this cluster")
			if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
				return nil, err
			}
		}
		held, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, named) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

// nodes are numbered from 1; node 1 also holds the control plane.
func (c *cluster) nodes() []int {
	var list []int
	for i := 1; i <= max(1, c.Options.Nodes); i++ {
		list = append(list, i)
	}
	return list
}

func nodeName(i int) string     { return fmt.Sprintf("node-%d", i) }
func nodeIP(i int) string       { return fmt.Sprintf("172.30.0.%d", i) }
func nodePodRange(i int) string { return fmt.Sprintf("10.244.%d.0/24", i) }

// listenForAPI takes the port of the API server: by name, so that a cluster
// made again mostly keeps its address, and below the ephemeral ports, so that
// no outgoing connection sits on it.
func (c *cluster) listenForAPI() (net.Listener, error) {
	ports := apiPorts(c.name)
	if c.Port != 0 {
		ports = []int{c.Port}
	}
	var last error
	for _, port := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no port for the API server: %w", last)
}

func apiPorts(name string) []int {
	const first, count = 16443, 1000
	h := fnv.New32a()
	h.Write([]byte(name))
	start := int(h.Sum32() % count)
	ports := make([]int, 0, 50)
	for i := range cap(ports) {
		ports = append(ports, first+(start+i)%count)
	}
	return ports
}

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// writeFile writes through a rename: a reader sees the old file or the new.
func writeFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
