package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNames(t *testing.T) {
	for name, valid := range map[string]bool{
		"modelwright": true, "a": true, "test-2": true, strings.Repeat("a", 24): true,
		"": false, "-a": false, "2a": false, "../x": false, "A": false, strings.Repeat("a", 25): false,
	} {
		if _, err := openCluster(name); (err == nil) != valid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The longest socket path is the kernel's limit on names.
func TestSocketPathsFit(t *testing.T) {
	c, err := openCluster(strings.Repeat("a", 24))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{c.socket(9) + ".ttrpc"} {
		if len(path) > 107 {
			t.Errorf("%s has %d bytes", path, len(path))
		}
	}
}

func TestAPIPorts(t *testing.T) {
	a, b := apiPorts("a"), apiPorts("b")
	if !slices.Equal(a, apiPorts("a")) || a[0] == b[0] {
		t.Errorf("ports go by name: %d, %d", a[0], b[0])
	}
	for _, port := range append(a, b...) {
		if port < 16443 || port >= 17443 {
			t.Errorf("%d may be an ephemeral port", port)
		}
	}
}

func TestParseUp(t *testing.T) {
	name, o, given, err := parseUp([]string{"x", "--nodes=2", "--gpus=3"})
	if err != nil || name != "x" || o.Nodes != 2 || o.GPUs != 3 || !given["nodes"] || given["audit"] {
		t.Errorf("%s %+v %v %v", name, o, given, err)
	}
	if name, o, _, err := parseUp(nil); err != nil || name != defaultName || o.Nodes != 1 {
		t.Errorf("defaults: %s %+v %v", name, o, err)
	}
	for _, bad := range []string{"--nodes=0", "--gpus=-1", "--control-plane-only --nodes=2", "--fake-state=f", "--real-processes=f", "a b"} {
		if _, _, _, err := parseUp(append([]string{"x"}, strings.Fields(bad)...)); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

func TestConflictNamesOnlyGivenOptions(t *testing.T) {
	running := options{Nodes: 2, GPUs: 2}
	if err := (options{Nodes: 1}).conflict(running, map[string]bool{}); err != nil {
		t.Error(err)
	}
	err := options{Nodes: 1, GPUs: 2}.conflict(running, map[string]bool{"nodes": true, "gpus": true})
	if err == nil || !strings.Contains(err.Error(), "--nodes=1 (it has 2)") || strings.Contains(err.Error(), "gpus") {
		t.Error(err)
	}
}

func TestNetworkPlan(t *testing.T) {
	c := &cluster{name: "x", dir: "/s", state: state{Options: options{Nodes: 2}}}
	if plan := c.networkPlan(1); !strings.Contains(plan, "type veth peer name eth0 netns /s/ns/net-node-2\n") || !strings.Contains(plan, "route add 10.244.2.0/24 via 172.30.0.2\n") {
		t.Error(plan)
	}
	if plan := c.networkPlan(1); !strings.Contains(plan, "link add nodes address ") {
		t.Error("the bridge's address would be that of a port", plan)
	}
	if plan := c.networkPlan(2); !strings.Contains(plan, "route add 10.244.1.0/24 via 172.30.0.1\n") || strings.Contains(plan, "bridge") {
		t.Error(plan)
	}
}

func TestImageIsReproducible(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "binary")
	write := func(name, content string, mode os.FileMode, at time.Time) {
		t.Helper()
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	spec := imageSpec{
		name:   "modelwright.dev/x:1",
		files:  map[string]string{"/app": binary, "/share": filepath.Join(dir, "tree")},
		config: v1.ImageConfig{Entrypoint: []string{"/app"}, User: nonroot},
	}
	write("binary", "one", 0o700, time.Unix(1, 0))
	write("tree/b/c", "c", 0o600, time.Unix(1, 0))
	first, err := spec.write(filepath.Join(dir, "1.tar"))
	if err != nil {
		t.Fatal(err)
	}
	write("binary", "one", 0o755, time.Unix(2, 0))
	second, err := spec.write(filepath.Join(dir, "2.tar"))
	if err != nil || first != second {
		t.Errorf("same content: %s, %s, %v", first, second, err)
	}
	a, _ := os.ReadFile(filepath.Join(dir, "1.tar"))
	b, _ := os.ReadFile(filepath.Join(dir, "2.tar"))
	if len(a) == 0 || string(a) != string(b) {
		t.Error("the archives differ")
	}
	if name, digest, err := archiveName(filepath.Join(dir, "2.tar")); err != nil || name != spec.name || digest != second {
		t.Errorf("read back: %s %s %v", name, digest, err)
	}
	write("binary", "two", 0o755, time.Unix(2, 0))
	if third, _ := spec.write(filepath.Join(dir, "3.tar")); third == second {
		t.Error("other content, same digest")
	}
	entries, err := spec.entries()
	if err != nil || entries["/share/b/c"].mode != 0o644 || entries["/app"].mode != 0o755 {
		t.Errorf("%+v %v", entries, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestParseLdd(t *testing.T) {
	const out = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
	libs, err := parseLdd("x", out)
	if want := []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}; err != nil || !reflect.DeepEqual(libs, want) {
		t.Errorf("%v %v", libs, err)
	}
	if _, err := parseLdd("x", "\tlibcudart.so.12 => not found\n"); err == nil || !strings.Contains(err.Error(), "libcudart.so.12") {
		t.Error(err)
	}
	if libs, err := parseLdd("x", "\tstatically linked\n"); err != nil || libs != nil {
		t.Errorf("%v %v", libs, err)
	}
}

func TestToolVersionsArePinned(t *testing.T) {
	for _, tool := range []tool{kubernetesTool, corednsTool, versitygwTool, metricsTool, kedaTool, kedaAdapterTool, helmTool} {
		if version, err := tool.version(); err != nil || !strings.HasPrefix(version, "v") {
			t.Errorf("%s: %q %v", tool.name, version, err)
		}
	}
	for image, tool := range map[string]tool{
		s3Image: versitygwTool, metricsImage: metricsTool, kedaImage: kedaTool, kedaAdapterImage: kedaAdapterTool,
	} {
		if version, _ := tool.version(); !strings.HasSuffix(image, ":"+version[1:]) {
			t.Errorf("%s is not %s", image, version)
		}
	}
}

func TestHelmMajor(t *testing.T) {
	for version, major := range map[string]int{"v3.14.2+gc309b6f\n": 3, "v4.3.1": 4, "Client: v2.17.0": 0, "": 0} {
		if got := helmMajor(version); got != major {
			t.Errorf("%q: %d", version, got)
		}
	}
}

func TestFakeStatus(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		RestartPolicy:  corev1.RestartPolicyAlways,
		InitContainers: []corev1.Container{{Name: "init"}, {Name: "sidecar", RestartPolicy: &always}},
		Containers:     []corev1.Container{{Name: "resolve"}, {Name: "other"}},
	}}
	ready := func(s corev1.PodStatus) (status corev1.ConditionStatus) {
		for _, c := range s.Conditions {
			if c.Type == corev1.PodReady {
				status = c.Status
			}
		}
		return status
	}
	s := fakeStatus(pod, podAddress(300), "found", metav1.Now())
	if s.Phase != corev1.PodRunning || ready(s) != corev1.ConditionTrue || s.PodIP != "10.244.1.44" ||
		!s.ContainerStatuses[1].Ready || s.InitContainerStatuses[0].State.Terminated == nil || s.InitContainerStatuses[1].State.Running == nil {
		t.Errorf("%+v", s)
	}
	pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	s = fakeStatus(pod, "", "found", metav1.Now())
	if s.Phase != corev1.PodSucceeded || ready(s) != corev1.ConditionFalse ||
		s.ContainerStatuses[0].State.Terminated.Message != "found" || s.ContainerStatuses[1].State.Terminated.Message != "" {
		t.Errorf("%+v", s)
	}
}

func realContainerOf(image string, command, args []string) corev1.Container {
	return corev1.Container{Name: "c", Image: image, Command: command, Args: args, VolumeMounts: []corev1.VolumeMount{
		{Name: "models", MountPath: "/models"}, {Name: "assignment", MountPath: "/etc/modelwright/pod"},
	}}
}

func TestRealPodsAreThoseOfOurImages(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: realImages + "a:1"}, {Image: realImages + "b"}}}}
	if !isReal(pod) {
		t.Error("all containers are programs")
	}
	pod.Spec.Containers[1].Image = "example.test/b"
	if isReal(pod) {
		t.Error("one container is none")
	}
}

func TestCommandOfAContainer(t *testing.T) {
	volume := func(name string) string { return "/v/" + name }
	for _, c := range []struct {
		container corev1.Container
		program   string
		args      string
	}{
		{realContainerOf(realImages+"modelwright-server:1.0", nil, []string{"supervise"}), "modelwright-server",
			"supervise --assignment=/v/assignment/assignment --models=/v/models"},
		{realContainerOf(realImages+"modelwright-server:1.0-cuda", nil, []string{"supervise", "--execution-provider=CUDA"}), "modelwright-server",
			"supervise --assignment=/v/assignment/assignment --models=/v/models"},
		{realContainerOf(realImages+"x:1", []string{"/modelwright-loader", "fetch"}, nil), "modelwright-loader",
			"fetch --assignment=/v/assignment/assignment --models=/v/models"},
		{realContainerOf(realImages+"x:1", []string{"/modelwright-loader", "resolve"}, []string{"--source", "{}"}), "modelwright-loader",
			"resolve --source {} --report=/m"},
		{realContainerOf(realImages+"x:1", []string{"/modelwright-gateway"}, []string{"--grace-seconds=9"}), "modelwright-gateway", "--grace-seconds=9"},
	} {
		program, args := commandOf(c.container)
		all := strings.Join(append(slices.Clone(args), fileFlags(c.container, volume, "/m")...), " ")
		if program != c.program || all != c.args {
			t.Errorf("%s %q, want %s %q", program, all, c.program, c.args)
		}
	}
}

func TestDownwardAPIFields(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "n", Namespace: "s", Annotations: map[string]string{"a/b": "c"}}}
	for path, want := range map[string]string{"metadata.name": "n", "metadata.namespace": "s", "metadata.annotations['a/b']": "c", "spec.nodeName": ""} {
		if got := fieldOf(pod, path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestRealAddresses(t *testing.T) {
	for number, want := range map[int]string{1: "10.245.0.2", 255: "10.245.1.0", 65000: "10.245.253.233"} {
		if got := realAddress(number); got != want {
			t.Errorf("%d: %s", number, got)
		}
	}
}

func TestRealStatus(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "c"}}}}
	running := &realContainer{spec: pod.Spec.Containers[0], process: &os.Process{Pid: 1}}
	ended := func(code int32) *realContainer {
		return &realContainer{spec: pod.Spec.Containers[0], ended: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	restarts := ended(1)
	restarts.again = time.Unix(1, 0)
	for _, c := range []struct {
		what      string
		container *realContainer
		policy    corev1.RestartPolicy
		leaving   bool
		phase     corev1.PodPhase
	}{
		{"it runs", running, corev1.RestartPolicyAlways, false, corev1.PodRunning},
		{"it is started again", restarts, corev1.RestartPolicyAlways, false, corev1.PodRunning},
		{"it was told to end", ended(0), corev1.RestartPolicyAlways, true, corev1.PodSucceeded},
		{"it was killed", ended(-1), corev1.RestartPolicyAlways, true, corev1.PodFailed},
		{"it has done its work", ended(0), corev1.RestartPolicyOnFailure, false, corev1.PodSucceeded},
	} {
		pod.Spec.RestartPolicy = c.policy
		s := realStatus(pod, "10.245.0.2", c.leaving, metav1.Now(), metav1.Now(), []corev1.ContainerStatus{c.container.status("u")})
		if s.Phase != c.phase || s.PodIP != "10.245.0.2" {
			t.Errorf("%s: %+v", c.what, s)
		}
	}
	running.ready = true
	s := realStatus(pod, "", false, metav1.Now(), metav1.Now(), []corev1.ContainerStatus{running.status("u")})
	if last := s.Conditions[len(s.Conditions)-1]; last.Type != corev1.PodReady || last.Status != corev1.ConditionTrue {
		t.Errorf("%+v", last)
	}
}

func TestAProbeHasToFailSeveralTimes(t *testing.T) {
	c := &realContainer{spec: corev1.Container{ReadinessProbe: &corev1.Probe{FailureThreshold: 2}}}
	for i, step := range []struct{ ok, ready bool }{{false, false}, {true, true}, {false, true}, {true, true}, {false, true}, {false, false}} {
		if c.probed(step.ok); c.ready != step.ready {
			t.Errorf("step %d: %v", i, c.ready)
		}
	}
}
