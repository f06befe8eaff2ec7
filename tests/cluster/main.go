// Command cluster runs a real Kubernetes on one Linux machine, without a
// container engine: see README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: cluster COMMAND NAME [flags]

  up NAME [flags]            start or repair a cluster (cluster up NAME -h lists the flags)
  down NAME                  end it and remove everything it left
  status NAME                its processes, nodes and files
  env NAME                   the lines to export
  exec NAME [--node N] -- CMD   run CMD inside the cluster's network
  load NAME FILE.tar...      import images on every node
  s3 NAME                    build, load and start the S3 store
  metrics-server NAME        the same for what kubectl top and autoscalers ask
  keda NAME                  the same for KEDA
  image [flags]              assemble an image (cluster image -h lists the flags)
`

// commands are those of the usage, and those that the cluster's own processes
// run.
var commands = map[string]func(ctx context.Context, args []string) error{
	"up":             up,
	"down":           down,
	"status":         status,
	"env":            env,
	"exec":           execInside,
	"load":           load,
	"s3":             s3,
	"metrics-server": metricsServer,
	"keda":           keda,
	"image":          image,

	"enter":         enter,
	"forward":       forward,
	"lookup":        lookup,
	"device-plugin": devicePlugin,
	"fake-kubelet":  fakeKubelet,
}

func main() {
	var run func(context.Context, []string) error
	if len(os.Args) > 1 {
		run = commands[os.Args[1]]
	}
	if run == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "cluster %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
