package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// realImages is the registry of images that are programs of this machine: a
// pod of such containers is no fake.
const realImages = "process.test/"

func isReal(pod *corev1.Pod) bool {
	for _, container := range pod.Spec.Containers {
		if !strings.HasPrefix(container.Image, realImages) {
			return false
		}
	}
	return len(pod.Spec.InitContainers) == 0
}

// realPods is the part of the fake kubelet that starts processes: each pod
// has a network namespace with an address of its own, a folder for its
// volumes, and is ready when its probe says so.
type realPods struct {
	node     *fakeNode
	programs string // folder
	dir      string // a folder for each pod
	logs     string
	access   apiAccess
	mu       sync.Mutex
	pods     map[string]*realPod // by namespace and name
	next     int                 // pod address
}

// A realPod is looked after by one goroutine.
type realPod struct {
	of         *realPods
	key        string
	uid        types.UID
	pod        *corev1.Pod // as it was last seen
	network    *realNetwork
	containers []*realContainer
	started    metav1.Time
	turned     metav1.Time // when readiness changed
	ready      bool
	leaving    bool
	told       string
	woken      chan struct{}
	events     chan func()
}

func newRealPods(node *fakeNode, config *rest.Config, programs, dir string) (*realPods, error) {
	access, err := newAPIAccess(config)
	if err != nil {
		return nil, err
	}
	r := &realPods{
		node: node, programs: programs, dir: filepath.Join(dir, "pods"), logs: filepath.Join(dir, "log", "pods"),
		access: access, pods: map[string]*realPod{},
	}
	return r, os.MkdirAll(r.logs, 0o755)
}

// sync starts the pod, or has its goroutine look at what has changed.
func (r *realPods) sync(ctx context.Context, key string, pod *corev1.Pod) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.pods[key]; known != nil {
		known.wake()
		if known.uid != pod.UID {
			return errors.New("its namesake has not ended yet")
		}
		return nil
	}
	switch {
	case pod.DeletionTimestamp != nil:
		return r.node.remove(ctx, pod)
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return nil
	}
	r.next = r.next%65000 + 1
	p := &realPod{
		of: r, key: key, uid: pod.UID, pod: pod, network: newRealNetwork(r.next),
		started: metav1.Now(), woken: make(chan struct{}, 1), events: make(chan func(), 16),
	}
	r.pods[key] = p
	go p.run(ctx)
	return nil
}

// gone says that a pod is no longer in the store.
func (r *realPods) gone(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.pods[key]; known != nil {
		known.wake()
	}
}

func (p *realPod) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func (p *realPod) run(ctx context.Context) {
	defer func() {
		p.close()
		p.of.mu.Lock()
		delete(p.of.pods, p.key)
		p.of.mu.Unlock()
		p.of.node.queue.Add(p.key) // a namesake may wait
	}()
	for {
		err := p.open(ctx)
		if err == nil {
			break
		}
		p.say(err)
		time.Sleep(time.Second)
		if ctx.Err() != nil || !p.look() {
			return
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var kill <-chan time.Time
	for {
		if !p.look() { // deleted by force
			p.signal(syscall.SIGKILL)
			return
		}
		if err := p.deliver(); err != nil {
			p.say(err)
		}
		if p.pod.DeletionTimestamp != nil && !p.leaving {
			p.leaving = true
			p.signal(syscall.SIGTERM)
			kill = time.After(time.Duration(*p.pod.DeletionGracePeriodSeconds) * time.Second)
		}
		err := p.tell(ctx)
		if err == nil && p.leaving && p.running() == 0 {
			if err = p.of.node.remove(ctx, p.pod); err == nil || apierrors.IsNotFound(err) {
				return
			}
		}
		if err != nil && !apierrors.IsNotFound(err) {
			p.say(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.woken:
		case event := <-p.events:
			event()
		case <-kill:
			p.signal(syscall.SIGKILL)
		case <-tick.C:
			p.probe(ctx)
			p.restart()
		}
	}
}

func (p *realPod) say(err error) { fmt.Fprintf(os.Stderr, "%s: %v\n", p.key, err) }

// look takes over what the store knows; false: the pod is gone.
func (p *realPod) look() bool {
	object, found, _ := p.of.node.pods.GetByKey(p.key)
	if !found || object.(*corev1.Pod).UID != p.uid {
		return false
	}
	p.pod = object.(*corev1.Pod)
	return true
}

// open makes all that the containers find, and starts them.
func (p *realPod) open(ctx context.Context) error {
	if err := p.of.node.bind(ctx, p.pod); err != nil {
		return err
	}
	if err := os.MkdirAll(p.path(), 0o755); err != nil {
		return err
	}
	for _, volume := range p.pod.Spec.Volumes {
		if err := os.MkdirAll(p.volume(volume.Name), 0o755); err != nil {
			return err
		}
	}
	if err := p.deliver(); err != nil {
		return err
	}
	if err := p.of.access.write(ctx, p.of.node.client, p.pod, p.path("kubeconfig")); err != nil {
		return err
	}
	if err := p.network.create(ctx); err != nil {
		return err
	}
	for _, spec := range p.pod.Spec.Containers {
		c := &realContainer{spec: spec}
		p.containers = append(p.containers, c)
		p.start(c)
	}
	return nil
}

func (p *realPod) close() {
	p.network.remove()
	os.RemoveAll(p.path())
}

func (p *realPod) path(parts ...string) string {
	return filepath.Join(append([]string{p.of.dir, string(p.uid)}, parts...)...)
}

func (p *realPod) volume(name string) string { return p.path("volumes", name) }

// deliver writes the annotations that downward-API volumes show.
func (p *realPod) deliver() error {
	for _, volume := range p.pod.Spec.Volumes {
		if volume.DownwardAPI == nil {
			continue
		}
		for _, item := range volume.DownwardAPI.Items {
			if item.FieldRef == nil {
				continue
			}
			file, value := filepath.Join(p.volume(volume.Name), item.Path), fieldOf(p.pod, item.FieldRef.FieldPath)
			if old, err := os.ReadFile(file); err == nil && string(old) == value {
				continue
			}
			if err := writeFile(file, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// fieldOf is what the downward API calls by that path.
func fieldOf(pod *corev1.Pod, path string) string {
	switch path {
	case "metadata.name":
		return pod.Name
	case "metadata.namespace":
		return pod.Namespace
	}
	name, ok := strings.CutPrefix(path, "metadata.annotations['")
	if !ok {
		return ""
	}
	return pod.Annotations[strings.TrimSuffix(name, "']")]
}

func (p *realPod) running() (count int) {
	for _, c := range p.containers {
		if c.process != nil {
			count++
		}
	}
	return count
}

// probe asks the containers whose turn it is.
func (p *realPod) probe(ctx context.Context) {
	for _, c := range p.containers {
		probe := c.spec.ReadinessProbe
		if c.process == nil || probe == nil || probe.HTTPGet == nil || time.Now().Before(c.nextProbe) {
			continue
		}
		c.nextProbe = time.Now().Add(time.Duration(max(1, probe.PeriodSeconds))*time.Second - 100*time.Millisecond)
		url := fmt.Sprintf("http://%s:%d%s", p.network.ip, probePort(c.spec), probe.HTTPGet.Path)
		process := c.process
		go func() {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(max(1, probe.TimeoutSeconds))*time.Second)
			defer cancel()
			ok := answersWell(ctx, url)
			p.events <- func() {
				if c.process == process {
					c.probed(ok)
				}
			}
		}()
	}
}

func probePort(c corev1.Container) int {
	port := c.ReadinessProbe.HTTPGet.Port
	for _, named := range c.Ports {
		if named.Name == port.StrVal {
			return int(named.ContainerPort)
		}
	}
	return port.IntValue()
}

var probes = http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func answersWell(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := probes.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode < 400
}

// tell writes the status, if it is another one.
func (p *realPod) tell(ctx context.Context) error {
	var statuses []corev1.ContainerStatus
	ready := true
	for _, c := range p.containers {
		statuses = append(statuses, c.status(p.uid))
		ready = ready && c.ready
	}
	if ready != p.ready || p.told == "" {
		p.ready, p.turned = ready, metav1.Now()
	}
	status := realStatus(p.pod, p.network.ip, p.leaving, p.started, p.turned, statuses)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.uid}, "status": status})
	if err != nil || string(patch) == p.told {
		return err
	}
	_, err = p.of.node.client.CoreV1().Pods(p.pod.Namespace).Patch(ctx, p.pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err == nil {
		p.told = string(patch)
	}
	return err
}

// realStatus is the status of a pod by what its containers do.
func realStatus(pod *corev1.Pod, ip string, leaving bool, started, turned metav1.Time, containers []corev1.ContainerStatus) corev1.PodStatus {
	status := fakeStatus(pod, ip, "", started)
	status.ContainerStatuses = containers
	ready, ended, failed := true, true, false
	for _, c := range containers {
		ready = ready && c.Ready
		ended = ended && c.State.Terminated != nil
		failed = failed || c.State.Terminated != nil && c.State.Terminated.ExitCode != 0
	}
	condition, reason := corev1.ConditionTrue, ""
	if !ready {
		condition, reason = corev1.ConditionFalse, "ContainersNotReady"
	}
	switch {
	case !ended || !leaving && pod.Spec.RestartPolicy == corev1.RestartPolicyAlways:
		status.Phase = corev1.PodRunning
	case failed:
		status.Phase = corev1.PodFailed
	default:
		status.Phase, reason = corev1.PodSucceeded, "PodCompleted"
	}
	for i := range status.Conditions {
		if c := &status.Conditions[i]; c.Type == corev1.ContainersReady || c.Type == corev1.PodReady {
			c.Status, c.Reason, c.LastTransitionTime = condition, reason, turned
		}
	}
	return status
}
