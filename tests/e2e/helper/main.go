// Command helper is what the end-to-end tests need inside the cluster: a
// store that fails as it is told, a hub, a client, and a load on an address.
package main

import (
	"encoding/base64"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "supervise": // in the place of a server, it is one that can't start
			log.Fatal("no way to serve: the flux capacitor is empty")
		case "fill":
			if err := fill(os.Args[2], os.Args[3:]); err != nil {
				log.Fatal(err)
			}
			return
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	files := &store{}
	mux.Handle("/files/", files)
	mux.Handle("/hub/", http.HandlerFunc(files.hub))
	mux.HandleFunc("POST /call", call)
	loads := &loads{}
	mux.HandleFunc("POST /loads/{id}", loads.start)
	mux.HandleFunc("DELETE /loads/{id}", loads.stop)

	if _, err := os.Stat("/tls/tls.crt"); err == nil {
		go func() { log.Fatal(http.ListenAndServeTLS(":8443", "/tls/tls.crt", "/tls/tls.key", mux)) }()
	}
	log.Fatal(http.ListenAndServe(":8080", mux))
}

// fill makes a folder that has these files and no others: PATH=BASE64 or
// PATH->TARGET, a symbolic link. Without files it removes the folder.
func fill(folder string, files []string) error {
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	for _, file := range files {
		name, target, isLink := strings.Cut(file, "->")
		name, content, _ := strings.Cut(name, "=")
		name = filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if isLink {
			if err := os.Symlink(target, name); err != nil {
				return err
			}
			continue
		}
		bytes, err := base64.StdEncoding.DecodeString(content)
		if err != nil {
			return err
		}
		if err := os.WriteFile(name, bytes, 0o644); err != nil {
			return err
		}
	}
	return nil
}
