package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A request to be sent from here. Bodies travel in base64, as Go's JSON has it.
type ask struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
}

type answer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"` // by lower-case name
	Body    []byte            `json:"body"`
	Error   string            `json:"error"`
}

func (a ask) send(client *http.Client) answer {
	request, err := http.NewRequest(a.Method, a.URL, bytes.NewReader(a.Body))
	if err != nil {
		return answer{Error: err.Error()}
	}
	for name, value := range a.Headers {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{Error: err.Error()}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{Error: err.Error()}
	}
	headers := map[string]string{}
	for name := range response.Header {
		headers[strings.ToLower(name)] = response.Header.Get(name)
	}
	return answer{Status: response.StatusCode, Headers: headers, Body: body}
}

// call sends one request, on a connection of its own. Whose certificate a
// store shows is for the loader to check, not for us.
func call(w http.ResponseWriter, r *http.Request) {
	var a ask
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	client := http.Client{Timeout: patience, Transport: transport}
	got := a.send(&client)
	if got.Error != "" {
		got.Headers, got.Body = map[string]string{}, []byte{} // not null
	}
	json.NewEncoder(w).Encode(got)
}

// loads are clients that send the same request every 20 ms: one on a
// connection that it keeps, one on a new connection each time.
type loads struct {
	sync.Mutex
	running map[string]*load
}

type load struct {
	stop    chan struct{}
	done    sync.WaitGroup
	mu      sync.Mutex
	summary summary
}

type summary struct {
	Sent     int            `json:"sent"`
	Failed   int            `json:"failed"`
	Failures []string       `json:"failures"`
	Answered map[string]int `json:"answered"` // by revision
}

const interval = 20 * time.Millisecond

// patience is for one answer.
const patience = time.Minute

func (l *loads) start(w http.ResponseWriter, r *http.Request) {
	var a ask
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	one := &load{stop: make(chan struct{}), summary: summary{Failures: []string{}, Answered: map[string]int{}}}
	for _, kept := range []bool{true, false} {
		one.done.Go(func() { one.run(a, kept) })
	}
	l.Lock()
	defer l.Unlock()
	if l.running == nil {
		l.running = map[string]*load{}
	}
	l.running[r.PathValue("id")] = one
}

func (l *loads) stop(w http.ResponseWriter, r *http.Request) {
	l.Lock()
	one := l.running[r.PathValue("id")]
	delete(l.running, r.PathValue("id"))
	l.Unlock()
	if one == nil {
		http.NotFound(w, r)
		return
	}
	close(one.stop)
	one.done.Wait()
	json.NewEncoder(w).Encode(one.summary)
}

func (l *load) run(a ask, kept bool) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: !kept}}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		begin := time.Now()
		got := a.send(client)
		l.mu.Lock()
		l.summary.Sent++
		if got.Status == http.StatusOK {
			l.summary.Answered[got.Headers["modelwright-revision"]]++
		} else {
			l.summary.Failed++
			if len(l.summary.Failures) < 20 {
				l.summary.Failures = append(l.summary.Failures, fmt.Sprintf("%s after %s, kept connection %v: %d %s%s",
					begin.UTC().Format("15:04:05.000"), time.Since(begin).Round(time.Millisecond), kept, got.Status, got.Error, got.Body))
			}
		}
		l.mu.Unlock()
	}
}
