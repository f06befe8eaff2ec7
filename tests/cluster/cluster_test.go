package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestCluster runs real clusters: two side by side, one of them with two
// nodes and four GPUs. make test-cluster names the program to run.
func TestCluster(t *testing.T) {
	program := os.Getenv("CLUSTER")
	if program == "" {
		t.Skip("set CLUSTER to the built program (make test-cluster does)")
	}
	full := &fixture{T: t, program: program, name: "test-full", volume: t.TempDir()}
	plane := &fixture{T: t, program: program, name: "test-plane"}
	for _, f := range []*fixture{full, plane} {
		f.must("down", f.name)
		t.Cleanup(func() { f.try("down", f.name) })
	}
	stateFile := filepath.Join(t.TempDir(), "state.json")
	messageFile := filepath.Join(t.TempDir(), "message")
	os.WriteFile(stateFile, []byte(`{"at": "{podIP}"}`), 0o644)
	os.WriteFile(messageFile, []byte("resolved"), 0o644)

	programs := t.TempDir()
	buildEcho(t, programs+"/echo")

	os.Chmod(full.volume, 0o777)
	os.Chmod(filepath.Dir(full.volume), 0o755)

	var both sync.WaitGroup
	for f, flags := range map[*fixture][]string{
		full:  {"--nodes=2", "--gpus=2"},
		plane: {"--control-plane-only", "--audit", "--fake-state=" + stateFile, "--fake-termination-message=" + messageFile, "--real-processes=" + programs},
	} {
		both.Add(1)
		go func() {
			defer both.Done()
			if out, err := f.try(append([]string{"up", f.name}, flags...)...); err != nil {
				t.Errorf("up %s: %v\n%s", f.name, err, out)
			}
		}()
	}
	both.Wait()
	if t.Failed() {
		return
	}

	t.Run("control plane only", func(t *testing.T) { plane.on(t).controlPlaneOnly(stateFile) })
	t.Run("real processes", func(t *testing.T) { plane.on(t).realProcesses() })
	t.Run("up again", func(t *testing.T) { full.on(t).upAgain() })
	t.Run("pods", func(t *testing.T) { full.on(t).pods() })
	t.Run("GPUs", func(t *testing.T) { full.on(t).gpus() })
	t.Run("repair", func(t *testing.T) { full.on(t).repair() })
	t.Run("down after kills", func(t *testing.T) { full.on(t).downAfterKills() })
	t.Run("neighbour unharmed", func(t *testing.T) {
		plane.on(t).must("status", plane.name)
		plane.on(t).downClean()
	})
}

type fixture struct {
	*testing.T
	program, name string
	volume        string // a folder that outlasts the pods which mount it
}

func (f *fixture) on(t *testing.T) *fixture {
	g := *f
	g.T = t
	return &g
}

func (f *fixture) try(args ...string) (string, error) {
	cmd := exec.Command(f.program, args...)
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	return both.String(), err
}

func (f *fixture) must(args ...string) string {
	f.Helper()
	out, err := f.try(args...)
	if err != nil {
		f.Fatalf("cluster %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (f *fixture) cluster() *cluster {
	c, err := openRunning(f.name)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

func (f *fixture) kubectl(stdin string, args ...string) string {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := f.cluster().kubectl(ctx, stdin, args...)
	if err != nil {
		f.Fatalf("%v\n%s", err, f.scene())
	}
	return out
}

// eventually gives the probe two minutes.
func (f *fixture) eventually(what string, probe func() error) {
	f.Helper()
	var err error
	for begin := time.Now(); time.Since(begin) < 2*time.Minute; time.Sleep(200 * time.Millisecond) {
		if err = probe(); err == nil {
			return
		}
	}
	f.Fatalf("%s: %v\n%s", what, err, f.scene())
}

// scene is what one would look at after a failure.
func (f *fixture) scene() string {
	scene, _ := f.cluster().kubectl(context.Background(), "", "get", "pods,nodes,events", "-A", "-o", "wide")
	return scene
}

func (f *fixture) controlPlaneOnly(stateFile string) {
	f.kubectl("", "create", "deployment", "x", "--image=none", "--replicas=3")
	f.kubectl("", "rollout", "status", "deployment/x", "--timeout=2m")
	ip := f.kubectl("", "get", "pods", "-l", "app=x", "-o", "jsonpath={.items[0].status.podIP}")
	url := "http://" + ip + ":8081/modelwright/v1/state"
	if got := f.must("exec", f.name, "--", "curl", "-sf", url); got != `{"at": "`+ip+`"}` {
		f.Errorf("state: %q", got)
	}
	os.WriteFile(stateFile, []byte("other"), 0o644)
	if got := f.must("exec", f.name, "--", "curl", "-sf", url); got != "other" {
		f.Errorf("changed state: %q", got)
	}
	f.kubectl(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "r"}, "spec":
		{"restartPolicy": "OnFailure", "containers": [{"name": "resolve", "image": "none"}]}}`, "apply", "-f", "-")
	f.kubectl("", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/r", "--timeout=2m")
	if got := f.kubectl("", "get", "pod", "r", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.message}"); got != "resolved" {
		f.Errorf("termination message: %q", got)
	}
	f.kubectl("", "delete", "deployment", "x", "--timeout=2m")
	f.kubectl("", "wait", "--for=delete", "pods", "-l", "app=x", "--timeout=2m")
	audit, err := os.ReadFile(f.cluster().auditLog())
	if err != nil || !strings.Contains(string(audit), `"userAgent":"fake-kubelet"`) {
		f.Errorf("audit log: %v", err)
	}
}

func buildEcho(t *testing.T, binary string) {
	t.Helper()
	build := exec.Command("go", "build", "-o", binary, "./testdata/echo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// realProcesses runs two pods on the same port: each has its own address, is
// ready when it answers, is started again, and ends.
func (f *fixture) realProcesses() {
	f.kubectl(`{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "real"}, "spec": {
		"replicas": 2, "selector": {"matchLabels": {"app": "real"}},
		"template": {"metadata": {"labels": {"app": "real"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
			"name": "echo", "image": "process.test/echo:1",
			"env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
			"ports": [{"name": "http", "containerPort": 8080}],
			"readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}}]}}}}`, "apply", "-f", "-")
	f.kubectl("", "rollout", "status", "deployment/real", "--timeout=2m")
	pods := strings.Fields(f.kubectl("", "get", "pods", "-l", "app=real", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {end}"))
	if len(pods) != 4 {
		f.Fatalf("pods and addresses: %q", pods)
	}
	for i := 0; i < len(pods); i += 2 {
		if answer := f.must("exec", f.name, "--", "curl", "-sf", "-m60", "http://"+pods[i+1]+":8080"); !strings.Contains(answer, pods[i]) {
			f.Errorf("%s answered as %s", pods[i], answer)
		}
	}
	count := func() (pids []int) {
		for pid := range f.cluster().members() {
			if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasSuffix(strings.TrimRight(string(args), "\x00"), "/echo") {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	syscall.Kill(count()[0], syscall.SIGKILL)
	f.eventually("a container that is started again", func() error {
		restarts := f.kubectl("", "get", "pods", "-l", "app=real", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}")
		if restarts != "0 1" && restarts != "1 0" {
			return fmt.Errorf("restarts: %s", restarts)
		}
		return nil
	})
	f.kubectl("", "delete", "deployment", "real", "--timeout=2m")
	f.kubectl("", "wait", "--for=delete", "pods", "-l", "app=real", "--timeout=2m")
	if left := count(); left != nil {
		f.Errorf("processes left: %v", left)
	}
}

func (f *fixture) upAgain() {
	processes := func() (lines []string) {
		for line := range strings.Lines(f.must("status", f.name)) {
			if strings.HasPrefix(line, "process ") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	before := processes()
	f.must("up", f.name)
	if after := processes(); !slices.Equal(before, after) {
		f.Errorf("processes before and after:\n%s\n%s", before, after)
	}
	if out, err := f.try("up", f.name, "--nodes=1"); err == nil || !strings.Contains(out, "--nodes=1 (it has 2)") {
		f.Errorf("other options: %v %s", err, out)
	}
}

func (f *fixture) pods() {
	dir := f.TempDir()
	binary, archive := dir+"/echo", dir+"/echo.tar"
	buildEcho(f.T, binary)
	f.must("image", "--name=modelwright.dev/echo:test", "--out="+archive, "--file=/echo="+binary, "--entrypoint=/echo")
	f.must("load", f.name, archive)

	manifest, err := os.ReadFile("testdata/echo.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.kubectl(strings.ReplaceAll(string(manifest), "FOLDER", f.volume), "apply", "-f", "-")
	f.kubectl("", "-n", "test", "rollout", "status", "deployment/echo", "--timeout=2m")
	if _, err := os.Stat(f.volume + "/file"); err != nil {
		f.Errorf("the pods' volume: %v", err)
	}

	// DNS and the Service, from a pod, to pods on both nodes and to itself.
	// The proxies may learn of an endpoint a second after it is ready.
	seen := map[string]bool{}
	f.eventually("all four pods behind the Service", func() error {
		answer, err := f.get("http://echo.test.svc.cluster.local/")
		if err == nil {
			seen[answer] = true
		}
		if len(seen) != 4 {
			return fmt.Errorf("reached %v, %v", seen, err)
		}
		return nil
	})
	ip := f.kubectl("", "-n", "test", "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
	f.eventually("the Service from the other node", func() error {
		out, err := f.try("exec", f.name, "--node=node-2", "--", "curl", "-sSf", "-m30", "http://"+ip)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	f.eventually("a name outside that does not exist", func() error {
		if _, err := f.get("http://example.invalid/"); err == nil || !strings.Contains(err.Error(), "no such host") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	if logs := f.kubectl("", "-n", "test", "logs", "deploy/echo"); !strings.HasSuffix(logs, "echo started\n") {
		f.Errorf("logs: %q", logs)
	}
	f.portForward()
}

// get is what one of the pods gets.
func (f *fixture) get(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return f.cluster().kubectl(ctx, "", "-n", "test", "exec", "deploy/echo", "--", "/echo", "get", url)
}

func (f *fixture) portForward() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.Command(f.cluster().path("bin", "kubectl"), "--kubeconfig", f.cluster().kubeconfig("admin"),
		"-n", "test", "port-forward", "service/echo", fmt.Sprintf("%d:80", port))
	if err := cmd.Start(); err != nil {
		f.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	f.eventually("port-forward", func() error {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err == nil {
			response.Body.Close()
		}
		return err
	})
}

func (f *fixture) gpus() {
	count := func(field string) int {
		return len(strings.Fields(f.kubectl("", "-n", "test", "get", "pods", "-l", "app=gpu", "--field-selector", field, "-o", "name")))
	}
	expect := func(what string, running, pending int) {
		f.Helper()
		f.eventually(what, func() error {
			if r, p := count("status.phase=Running"), count("status.phase=Pending"); r != running || p != pending {
				return fmt.Errorf("%d pods run, %d wait", r, p)
			}
			return nil
		})
	}
	expect("four GPUs for five pods", 4, 1)
	f.eventually("the reason why the fifth waits", func() error {
		why := f.kubectl("", "-n", "test", "get", "pods", "-l", "app=gpu", "--field-selector=status.phase=Pending", "-o", "jsonpath={.items[0].status.conditions}")
		if !strings.Contains(why, "Insufficient nvidia.com/gpu") {
			return errors.New(why)
		}
		return nil
	})
	running := strings.Fields(f.kubectl("", "-n", "test", "get", "pods", "-l", "app=gpu", "--field-selector=status.phase=Running", "-o", "name"))[0]
	if env := f.kubectl("", "-n", "test", "get", running, "-o", "jsonpath={.spec.containers[0].resources.limits}"); !strings.Contains(env, `"nvidia.com/gpu":"1"`) {
		f.Error(env)
	}
	f.kubectl("", "-n", "test", "scale", "deployment/gpu", "--replicas=4")
	expect("a freed GPU", 4, 0)
}

// kill ends a process of the cluster as an accident would.
func (f *fixture) kill(names ...string) {
	f.Helper()
	for _, name := range names {
		pid := f.cluster().running(name)
		if pid == 0 {
			f.Fatalf("%s does not run", name)
		}
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// killShims ends containerd's shims; their containers go on, orphaned.
func (f *fixture) killShims() {
	killed := 0
	for pid := range f.cluster().members() {
		if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.HasPrefix(args, []byte("/usr/bin/containerd-shim")) {
			syscall.Kill(pid, syscall.SIGKILL)
			killed++
		}
	}
	if killed == 0 {
		f.Error("no shim found")
	}
}

func (f *fixture) repair() {
	f.kill("kubelet-node-1", "etcd", "kube-apiserver", "containerd-node-2", "forward", "kube-controller-manager", "device-plugin-node-1")
	f.must("up", f.name) // at once: some are still dying
	f.must("status", f.name)
	f.kill("kube-scheduler")
	f.eventually("status of a broken cluster", func() error {
		if out, err := f.try("status", f.name); err == nil || !strings.Contains(out, "process kube-scheduler dead") {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})
	f.killShims()
	f.must("up", f.name)
	f.eventually("pods after their shims' end", func() error {
		if out := f.kubectl("", "-n", "test", "get", "deployment", "echo", "-o", "jsonpath={.status.readyReplicas}"); out != "4" {
			return fmt.Errorf("%s of 4 ready", out)
		}
		return nil
	})
	f.eventually("the Service after their shims' end", func() error {
		_, err := f.get("http://echo.test.svc.cluster.local/")
		return err
	})
}

func (f *fixture) downAfterKills() {
	f.kill("etcd", "containerd-node-1", "kubelet-node-2", "kube-proxy-node-1", "forward")
	f.killShims()
	f.downClean()
}

// downClean ends the cluster and looks for everything that could be left.
func (f *fixture) downClean() {
	c := f.cluster()
	namespaces := map[string]bool{}
	for _, i := range c.nodes() {
		namespaces[netnsID(f, c.netns(i))] = true
	}
	f.must("down", f.name)
	if mounts, err := mountsBelow(c.dir); err != nil || len(mounts) > 0 {
		f.Errorf("mounts left: %v %v", mounts, err)
	}
	if groups := c.trees(); len(groups) > 0 {
		f.Errorf("cgroups left: %v", groups)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		args, _ := os.ReadFile(process + "/cmdline")
		if strings.Contains(string(args), c.dir+"/") {
			f.Errorf("process left: %s %q", process, args)
		}
		if id, err := os.Readlink(process + "/ns/net"); err == nil && namespaces[id] {
			f.Errorf("process left in the network: %s %q", process, args)
		}
	}
	for _, place := range []string{stateRoot(), "/var/lib/cni", "/var/log/containers", "/run/netns"} {
		filepath.WalkDir(place, func(path string, e fs.DirEntry, err error) error {
			target, _ := os.Readlink(path)
			if strings.Contains(path, f.name) || strings.Contains(target, f.name) {
				f.Errorf("left: %s %s", path, target)
			}
			return nil
		})
	}
	if out, err := f.try("status", f.name); err == nil {
		f.Errorf("status after down: %s", out)
	}
	f.must("down", f.name) // nothing to do is no failure
}

// netnsID is how /proc/PID/ns/net names the namespace that a file holds.
func netnsID(f *fixture, path string) string {
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		f.Fatal(err)
	}
	return fmt.Sprintf("net:[%d]", s.Ino)
}
