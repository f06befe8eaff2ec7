package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A file and how it misbehaves.
type file struct {
	bytes []byte
	// Nothing to hold on to: neither ETag nor ranges.
	mutable bool
	// The connection ends after so many bytes of a whole read; 0: it does not.
	cut int
	// Asked for as a bearer token, when there is one.
	token string
	// Answered instead of the file, when it is not 0.
	status int
	// Sent elsewhere, when it is not empty.
	redirect string
}

// store keeps files in memory. PUT says in headers how a file misbehaves.
type store struct {
	sync.Mutex
	files map[string]file
}

func (s *store) get(name string) (file, bool) {
	s.Lock()
	defer s.Unlock()
	f, ok := s.files[name]
	return f, ok
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/files/")
	switch r.Method {
	case http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		number := func(header string) int { n, _ := strconv.Atoi(r.Header.Get(header)); return n }
		s.Lock()
		defer s.Unlock()
		if s.files == nil {
			s.files = map[string]file{}
		}
		s.files[name] = file{
			bytes:    body,
			mutable:  r.Header.Get("X-Mutable") != "",
			cut:      number("X-Cut"),
			token:    r.Header.Get("X-Token"),
			status:   number("X-Status"),
			redirect: r.Header.Get("X-Redirect"),
		}
	case http.MethodDelete:
		s.Lock()
		defer s.Unlock()
		delete(s.files, name)
	default:
		s.serve(w, r, name)
	}
}

func (s *store) serve(w http.ResponseWriter, r *http.Request, name string) {
	f, ok := s.get(name)
	switch {
	case !ok:
		http.NotFound(w, r)
	case f.token != "" && r.Header.Get("Authorization") == "":
		w.WriteHeader(http.StatusUnauthorized)
	case f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token:
		w.WriteHeader(http.StatusForbidden)
	case f.status != 0:
		w.WriteHeader(f.status)
	case f.redirect != "":
		http.Redirect(w, r, f.redirect, http.StatusFound)
	case f.cut > 0 && r.Header.Get("Range") == "":
		w.Header().Set("Etag", etag(f.bytes))
		w.Header().Set("Content-Length", strconv.Itoa(len(f.bytes)))
		w.Write(f.bytes[:min(f.cut, len(f.bytes))])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case f.mutable:
		w.Header().Set("Content-Length", strconv.Itoa(len(f.bytes)))
		w.Write(f.bytes)
	default:
		w.Header().Set("Etag", etag(f.bytes))
		http.ServeContent(w, r, "model.onnx", time.Time{}, bytes.NewReader(f.bytes))
	}
}

func etag(b []byte) string {
	return fmt.Sprintf(`"%x"`, sha256.Sum256(b))
}

// The hub: a repository is what lies below hub/OWNER/NAME/, its commit the
// digest of all of it.

func (s *store) commit(repo string) (string, []string) {
	s.Lock()
	defer s.Unlock()
	var names []string
	for name := range s.files {
		if strings.HasPrefix(name, repo) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	sum := sha256.New()
	for _, name := range names {
		fmt.Fprintf(sum, "%s %d\n", name, len(s.files[name].bytes))
		sum.Write(s.files[name].bytes)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))[:40], names
}

// hub answers below /hub/: api/models/OWNER/NAME/revision/REVISION,
// api/models/OWNER/NAME/tree/COMMIT[/FOLDER], OWNER/NAME/resolve/COMMIT/PATH.
func (s *store) hub(w http.ResponseWriter, r *http.Request) {
	rest, isAPI := strings.CutPrefix(strings.TrimPrefix(r.URL.Path, "/hub/"), "api/models/")
	parts := strings.SplitN(rest, "/", 5)
	if len(parts) < 4 {
		http.NotFound(w, r)
		return
	}
	repo := "hub/" + parts[0] + "/" + parts[1] + "/"
	commit, names := s.commit(repo)
	below := ""
	if len(parts) > 4 {
		below = parts[4]
	}
	switch verb, at := parts[2], parts[3]; {
	case len(names) == 0:
		w.WriteHeader(http.StatusUnauthorized) // as the hub does, so that private names stay private
	case isAPI && verb == "revision" && (at == "main" || at == commit):
		json.NewEncoder(w).Encode(map[string]any{"sha": commit})
	case isAPI && verb == "tree" && at == commit:
		s.tree(w, repo, below, names)
	case !isAPI && verb == "resolve" && at == commit:
		s.serve(w, r, path.Join(repo, below))
	default:
		http.NotFound(w, r)
	}
}

func (s *store) tree(w http.ResponseWriter, repo, folder string, names []string) {
	entries := []map[string]any{}
	for _, name := range names {
		below := strings.TrimPrefix(name, repo)
		if folder == "" || strings.HasPrefix(below, folder+"/") {
			f, _ := s.get(name)
			entries = append(entries, map[string]any{"type": "file", "path": below, "size": len(f.bytes)})
		}
	}
	if len(entries) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	json.NewEncoder(w).Encode(entries)
}
