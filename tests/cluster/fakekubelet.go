package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

// A fakeNode is kubelet and scheduler of a cluster that runs no pods: it
// binds each pod to the one node and says at once that it is ready, or done,
// or gone. So only controllers and the API server take time.
type fakeNode struct {
	client  kubernetes.Interface
	pods    cache.Store
	queue   workqueue.TypedRateLimitingInterface[string]
	message string   // file with what a container resolve leaves
	told    sync.Map // pod's key to the UID whose state was told: the store may not show it yet
	real    *realPods
	mu      sync.Mutex
	next    int // pod address
}

func fakeKubelet(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("fake-kubelet", flag.ContinueOnError)
	kubeconfig := f.String("kubeconfig", "", "")
	message := f.String("termination-message-file", "", "")
	state := f.String("state-file", "", "")
	gpus := f.Int("gpus", 0, "")
	programs := f.String("programs", "", "")
	dir := f.String("dir", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = "fake-kubelet" // who counts requests must tell ours apart
	config.QPS, config.Burst = 1000, 1000
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := createFakeNode(ctx, client, *gpus); err != nil {
		return err
	}
	lean := func(object any) (any, error) {
		if pod, ok := object.(*corev1.Pod); ok {
			pod.ManagedFields = nil // most of a pod, and of no use here
		}
		return object, nil
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(lean))
	informer := factory.Core().V1().Pods().Informer()
	n := &fakeNode{
		client:  client,
		pods:    informer.GetStore(),
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
		message: *message,
	}
	if *programs != "" {
		if n.real, err = newRealPods(n, config, *programs, *dir); err != nil {
			return err
		}
	}
	served := make(chan error, 1)
	gateways := newFakeGateways(ctx, config, n.pods)
	go func() { served <- http.ListenAndServe(":8081", adminHandler(*state, gateways)) }()
	enqueue := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok {
			n.queue.Add(pod.Namespace + "/" + pod.Name)
		}
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	n.skipUsedAddresses()
	for range 32 {
		go n.work(ctx)
	}
	fmt.Fprintln(os.Stderr, "serving")
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	n.queue.ShutDown()
	return err
}

func createFakeNode(ctx context.Context, client kubernetes.Interface, gpus int) error {
	resources := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("100k"),
		corev1.ResourceMemory: resource.MustParse("1Pi"),
		corev1.ResourcePods:   resource.MustParse("100k"),
	}
	if gpus > 0 {
		resources[gpuResource] = *resource.NewQuantity(int64(gpus), resource.DecimalSI)
	}
	now := metav1.Now()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(1), Labels: map[string]string{
			corev1.LabelHostname: nodeName(1), corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		}},
		Status: corev1.NodeStatus{
			Capacity: resources, Allocatable: resources,
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeIP(1)}},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "FakeKubelet",
				Message: "no pod really runs", LastHeartbeatTime: now, LastTransitionTime: now,
			}},
		},
	}
	_, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (n *fakeNode) work(ctx context.Context) {
	for {
		key, stop := n.queue.Get()
		if stop {
			return
		}
		if err := n.sync(ctx, key); err != nil && !apierrors.IsNotFound(err) {
			fmt.Fprintf(os.Stderr, "%s: %v\n", key, err)
			n.queue.AddRateLimited(key)
		} else {
			n.queue.Forget(key)
		}
		n.queue.Done(key)
	}
}

// How long a pod that was deleted by force may still be there.
const forcedPatience = 2 * time.Second

// sync does for a pod what is left to do.
func (n *fakeNode) sync(ctx context.Context, key string) error {
	object, found, err := n.pods.GetByKey(key)
	if err != nil || !found {
		n.told.Delete(key)
		if n.real != nil {
			n.real.gone(key)
		}
		return err
	}
	pod := object.(*corev1.Pod)
	if n.real != nil && isReal(pod) {
		return n.real.sync(ctx, key, pod)
	}
	told, _ := n.told.Load(key)
	pods := n.client.CoreV1().Pods(pod.Namespace)
	switch {
	case pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0:
		// By force: the API server takes the object itself, in two steps. One that stopped between them waits for a kubelet.
		if left := forcedPatience - time.Since(pod.DeletionTimestamp.Time); left > 0 {
			n.queue.AddAfter(key, left)
			return nil
		}
		return n.remove(ctx, pod)
	case pod.DeletionTimestamp != nil:
		if isGateway(pod) && told == pod.UID { // the operator waits to see that it has ended
			if err := n.end(ctx, pod); err != nil {
				return err
			}
		}
		return n.remove(ctx, pod)
	case pod.Status.Phase != corev1.PodPending || told == pod.UID:
		return nil
	case pod.Spec.SchedulerName != corev1.DefaultSchedulerName: // there is no other
		return nil
	}
	if err := n.bind(ctx, pod); err != nil {
		return err
	}
	message := ""
	if n.message != "" {
		content, err := os.ReadFile(n.message)
		if err != nil {
			return err
		}
		message = string(content)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID}, // never the status of a namesake
		"status":   fakeStatus(pod, n.address(), message, metav1.Now()),
	})
	if err != nil {
		return err
	}
	if _, err := pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	n.told.Store(key, pod.UID)
	return nil
}

func (n *fakeNode) bind(ctx context.Context, pod *corev1.Pod) error {
	if pod.Spec.NodeName != "" {
		return nil
	}
	err := n.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName(1)},
	}, metav1.CreateOptions{})
	if apierrors.IsConflict(err) { // bound, the store is behind
		return nil
	}
	return err
}

// remove takes the object of a pod that has ended.
func (n *fakeNode) remove(ctx context.Context, pod *corev1.Pod) error {
	return n.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
	})
}

// end says that the containers of a pod have ended.
func (n *fakeNode) end(ctx context.Context, pod *corev1.Pod) error {
	now, statuses := metav1.Now(), []corev1.ContainerStatus{}
	for _, status := range pod.Status.ContainerStatuses {
		status.Ready, status.Started = false, new(bool)
		status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: now}}
		statuses = append(statuses, status)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status":   map[string]any{"containerStatuses": statuses},
	})
	if err != nil {
		return err
	}
	_, err = n.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// address gives out pod addresses in order. The whole range leads to us.
func (n *fakeNode) address() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next = n.next%65000 + 1
	return podAddress(n.next)
}

func podAddress(i int) string { return fmt.Sprintf("10.244.%d.%d", i/256, i%256) }

func (n *fakeNode) skipUsedAddresses() {
	for _, object := range n.pods.List() {
		var network, high, low int
		if _, err := fmt.Sscanf(object.(*corev1.Pod).Status.PodIP, "10.%d.%d.%d", &network, &high, &low); err != nil {
			continue
		}
		if network == 244 {
			n.next = max(n.next, high*256+low)
		} else if n.real != nil {
			n.real.next = max(n.real.next, high*256+low-1)
		}
	}
}

// fakeStatus is the status of a pod that runs, or, if it is one that ends,
// has succeeded.
func fakeStatus(pod *corev1.Pod, ip, message string, now metav1.Time) corev1.PodStatus {
	done := pod.Spec.RestartPolicy != corev1.RestartPolicyAlways
	status := corev1.PodStatus{
		Phase:     corev1.PodRunning,
		HostIP:    nodeIP(1),
		HostIPs:   []corev1.HostIP{{IP: nodeIP(1)}},
		PodIP:     ip,
		PodIPs:    []corev1.PodIP{{IP: ip}},
		StartTime: &now,
		QOSClass:  pod.Status.QOSClass,
	}
	ready, reason := corev1.ConditionTrue, ""
	if done {
		status.Phase, ready, reason = corev1.PodSucceeded, corev1.ConditionFalse, "PodCompleted"
	}
	for _, t := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		condition := corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now}
		if t == corev1.ContainersReady || t == corev1.PodReady {
			condition.Status, condition.Reason = ready, reason
		}
		status.Conditions = append(status.Conditions, condition)
	}
	finished := func(name string) corev1.ContainerState {
		end := &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}
		if name == "resolve" {
			end.Message = message
		}
		return corev1.ContainerState{Terminated: end}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	report := func(container corev1.Container, ended bool) corev1.ContainerStatus {
		started := !ended
		s := corev1.ContainerStatus{
			Name: container.Name, Image: container.Image, ImageID: container.Image,
			ContainerID: "fake://" + string(pod.UID) + "/" + container.Name,
			Ready:       started, Started: &started, State: running,
		}
		if ended {
			s.State = finished(container.Name)
		}
		return s
	}
	for _, container := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, report(container, done))
	}
	for _, container := range pod.Spec.InitContainers {
		sidecar := container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways
		s := report(container, done || !sidecar)
		s.Ready = true // an init container that ended well counts as ready
		status.InitContainerStatuses = append(status.InitContainerStatuses, s)
	}
	return status
}

// adminHandler is every pod's server. It reads the file anew for each
// request: a test changes the state by writing it. {podIP} in it stands for
// the address that was asked.
func adminHandler(file string, gateways *fakeGateways) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /modelwright/v1/stream", gateways)
	mux.HandleFunc("POST /modelwright/v1/stream", gateways.tell)
	mux.HandleFunc("GET /modelwright/v1/state", func(w http.ResponseWriter, r *http.Request) {
		content, err := os.ReadFile(file)
		if err != nil {
			http.Error(w, "no state file", http.StatusNotFound)
			return
		}
		ip, _, _ := strings.Cut(r.Host, ":")
		w.Header().Set("Content-Type", "application/json")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.ReplaceAll(string(content), "{podIP}", ip)))
	})
	return mux
}
