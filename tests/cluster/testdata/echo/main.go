// Command echo is the test's container: it says its name on port 8080, and as
// "echo get URL" it asks another.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "get" {
		client := http.Client{Timeout: 20 * time.Second}
		response, err := client.Get(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		io.Copy(os.Stdout, response.Body)
		return
	}
	name, _ := os.Hostname()
	fmt.Println("echo started")
	if file := os.Getenv("WRITE"); file != "" {
		if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, name, os.Getenv("NODE"))
	}))
}
