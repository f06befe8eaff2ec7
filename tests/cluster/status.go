package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// status prints one fact a line, its kind first, for people and for awk.
func status(ctx context.Context, args []string) error {
	name, _ := splitName(args)
	c, err := openRunning(name)
	if err != nil {
		return err
	}
	fmt.Printf("cluster %s\n", c.name)
	fmt.Printf("state %s\n", c.dir)
	fmt.Printf("kubeconfig %s\n", c.kubeconfig("admin"))
	fmt.Printf("api https://127.0.0.1:%d\n", c.Port)
	if c.Options.Audit {
		fmt.Printf("audit-log %s\n", c.auditLog())
	}
	var dead []string
	for _, process := range c.recorded() {
		if pid := c.running(process); pid != 0 {
			fmt.Printf("process %s %d %s\n", process, pid, c.log(process))
		} else {
			fmt.Printf("process %s dead %s\n", process, c.log(process))
			dead = append(dead, process)
		}
	}
	if dead != nil {
		return fmt.Errorf("%s ended; make cluster-up repairs it", strings.Join(dead, ", "))
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, node := range nodes.Items {
		condition := "Ready"
		if err := nodeReady(&node); err != nil {
			condition = "NotReady"
		}
		gpus := node.Status.Allocatable[gpuResource]
		fmt.Printf("node %s %s gpus=%s\n", node.Name, condition, gpus.String())
	}
	return nil
}

// env prints what a shell must know.
func env(_ context.Context, args []string) error {
	name, _ := splitName(args)
	c, err := openRunning(name)
	if err != nil {
		return err
	}
	return printEnv(c)
}

func printEnv(c *cluster) error {
	fmt.Printf("export KUBECONFIG=%s\nexport PATH=%s:\"$PATH\"\n", c.kubeconfig("admin"), c.path("bin"))
	return nil
}
