package main

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

func TestAGatewaySaysWhatItIsTold(t *testing.T) {
	pods := cache.NewStore(cache.MetaNamespaceKeyFunc)
	pods.Add(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "g", Labels: map[string]string{gatewayLabel: "gateway"}},
		Status:     corev1.PodStatus{PodIP: "10.244.0.7"},
	})
	gateways := newFakeGateways(t.Context(), &rest.Config{}, pods)
	gateways.start.Do(func() {}) // no API server, no routes
	server := httptest.NewServer(adminHandler("", gateways))
	t.Cleanup(server.Close) // after the streams have ended
	ask := func(method, host, body string) *http.Response {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/modelwright/v1/stream", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		return response
	}

	if other := ask("GET", "10.244.0.8:8081", ""); other.StatusCode != http.StatusNotFound {
		t.Errorf("no gateway: %s", other.Status)
	}
	stream := bufio.NewScanner(ask("GET", "10.244.0.7:8081", "").Body)
	if stream.Scan(); stream.Text() != `{"formatVersion":1,"demand":{}}` {
		t.Errorf("first line: %q", stream.Text())
	}
	before := time.Now().UnixNano()
	answer := ask("POST", "10.244.0.7:8081", `{"formatVersion":1,"held":{"m":3}}`)
	var sent int64
	if _, err := fmt.Fscan(answer.Body, &sent); err != nil || sent < before || sent > time.Now().UnixNano() {
		t.Errorf("said at %d: %s, %v", sent, answer.Status, err)
	}
	for stream.Scan() && stream.Text() == `{"formatVersion":1,"demand":{}}` { // the pulse
	}
	if stream.Text() != `{"formatVersion":1,"held":{"m":3}}` {
		t.Errorf("told line: %q", stream.Text())
	}
}
