package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const gatewayLabel = "modelwright.dev/component"

var modelRoutes = schema.GroupVersionResource{Group: "modelwright.dev", Version: "v1alpha1", Resource: "modelroutes"}

func isGateway(pod *corev1.Pod) bool { return pod.Labels[gatewayLabel] == "gateway" }

// fakeGateways is the stream of every gateway pod: each acknowledges a
// ModelRoute of its namespace as soon as a watch has shown it, and says what
// it is told to: nothing is asked of it otherwise.
type fakeGateways struct {
	ctx    context.Context
	config *rest.Config
	pods   cache.Store
	lines  sync.Map // address to chan toldLine

	start  sync.Once
	mu     sync.Mutex
	routes map[string]map[string]appliedRoute // by namespace and name
	news   chan struct{}                      // closed at each change
}

type appliedRoute struct {
	UID        string `json:"uid"`
	Generation int64  `json:"generation"`
}

type gatewayReport struct {
	FormatVersion int                     `json:"formatVersion"`
	Routes        map[string]appliedRoute `json:"routes,omitempty"`
	Removed       []string                `json:"removed,omitempty"`
	Demand        map[string]any          `json:"demand"` // it counts, and has counted nothing
}

// toldLine is one that a gateway is told to say.
type toldLine struct {
	text []byte
	sent chan time.Time // closed if nobody heard it
}

func newFakeGateways(ctx context.Context, config *rest.Config, pods cache.Store) *fakeGateways {
	config = rest.CopyConfig(config)
	config.ContentType = "" // custom resources know no protobuf
	return &fakeGateways{ctx: ctx, config: config, pods: pods, routes: map[string]map[string]appliedRoute{}, news: make(chan struct{})}
}

// watch begins when somebody asks: the resource exists by then.
func (g *fakeGateways) watch() {
	client, err := dynamic.NewForConfig(g.config)
	if err != nil {
		panic(err) // the configuration has served for other clients
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informer := factory.ForResource(modelRoutes).Informer()
	take := func(object any, gone bool) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		route, ok := object.(*unstructured.Unstructured)
		if !ok {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		of := g.routes[route.GetNamespace()]
		if of == nil {
			of = map[string]appliedRoute{}
			g.routes[route.GetNamespace()] = of
		}
		if gone {
			delete(of, route.GetName())
		} else {
			of[route.GetName()] = appliedRoute{string(route.GetUID()), route.GetGeneration()}
		}
		close(g.news)
		g.news = make(chan struct{})
	}
	informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { take(object, false) },
		UpdateFunc: func(_, object any) { take(object, false) },
		DeleteFunc: func(object any) { take(object, true) },
	})
	factory.Start(g.ctx.Done())
	factory.WaitForCacheSync(g.ctx.Done())
}

// namespaceOf is that of the gateway at an address, "" if there is none.
func (g *fakeGateways) namespaceOf(ip string) string {
	for _, object := range g.pods.List() {
		if pod, ok := object.(*corev1.Pod); ok && pod.Status.PodIP == ip && isGateway(pod) {
			return pod.Namespace
		}
	}
	return ""
}

// read is what has changed since told, and when to look again.
func (g *fakeGateways) read(namespace string, told map[string]appliedRoute) (gatewayReport, chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	report := gatewayReport{FormatVersion: 1, Routes: map[string]appliedRoute{}, Demand: map[string]any{}}
	for name, route := range g.routes[namespace] {
		if told[name] != route {
			report.Routes[name], told[name] = route, route
		}
	}
	for name := range told {
		if _, found := g.routes[namespace][name]; !found {
			report.Removed = append(report.Removed, name)
			delete(told, name)
		}
	}
	return report, g.news
}

func (g *fakeGateways) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ip, _, _ := net.SplitHostPort(r.Host)
	// The store may be a moment behind the status that the operator has seen.
	namespace := g.namespaceOf(ip)
	if namespace == "" {
		http.Error(w, "no gateway has this address", http.StatusNotFound)
		return
	}
	g.start.Do(g.watch)
	w.Header().Set("Content-Type", "application/x-ndjson")
	told, lines := map[string]appliedRoute{}, g.linesOf(ip)
	for g.namespaceOf(ip) == namespace {
		report, news := g.read(namespace, told)
		if json.NewEncoder(w).Encode(report) != nil {
			return
		}
		w.(http.Flusher).Flush()
		pulse := time.NewTimer(time.Second)
		for waiting := true; waiting; {
			select {
			case <-r.Context().Done():
				pulse.Stop()
				return
			case <-news:
				if report, news = g.peek(namespace, told); len(report.Routes)+len(report.Removed) > 0 {
					waiting = false
				}
			case <-pulse.C:
				waiting = false
			case line := <-lines:
				sent := time.Now()
				_, err := w.Write(append(line.text, '\n'))
				if err == nil {
					err = http.NewResponseController(w).Flush()
				}
				if err != nil {
					close(line.sent)
					pulse.Stop()
					return
				}
				line.sent <- sent
			}
		}
		pulse.Stop()
	}
}

// peek says whether there is something new, and marks nothing as told.
func (g *fakeGateways) peek(namespace string, told map[string]appliedRoute) (gatewayReport, chan struct{}) {
	copied := make(map[string]appliedRoute, len(told))
	for name, route := range told {
		copied[name] = route
	}
	return g.read(namespace, copied)
}

func (g *fakeGateways) linesOf(ip string) chan toldLine {
	lines, _ := g.lines.LoadOrStore(ip, make(chan toldLine))
	return lines.(chan toldLine)
}

// tell has the gateway at an address say a line, and answers when it did: in
// nanoseconds since 1970.
func (g *fakeGateways) tell(w http.ResponseWriter, r *http.Request) {
	ip, _, _ := net.SplitHostPort(r.Host)
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	line := toldLine{text, make(chan time.Time, 1)}
	select {
	case g.linesOf(ip) <- line:
		if sent, heard := <-line.sent; heard {
			fmt.Fprintln(w, sent.UnixNano())
			return
		}
	case <-time.After(5 * time.Second):
	}
	http.Error(w, "nobody listens", http.StatusServiceUnavailable)
}
