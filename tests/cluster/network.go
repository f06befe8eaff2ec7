package main

import (
	"context"
	"fmt"
	"strings"
)

// createNetworks connects the nodes: node 1 has a bridge that the others hang
// on by a veth pair. No interface is outside, so two clusters can use the same
// addresses, and nothing leaks out.
func (c *cluster) createNetworks(ctx context.Context) error {
	for _, i := range c.nodes() {
		if _, err := c.inside(ctx, i, c.networkPlan(i), "ip", "-batch", "-"); err != nil {
			return err
		}
		// Below /proc/sys/net a process sees its own namespace.
		if _, err := c.inside(ctx, i, "", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"); err != nil {
			return err
		}
	}
	return nil
}

// networkPlan is the input of "ip -batch" for one node.
func (c *cluster) networkPlan(i int) string {
	var plan []string
	add := func(format string, args ...any) { plan = append(plan, fmt.Sprintf(format, args...)) }
	add("link set lo up")
	if i == 1 {
		// Without an address of its own a bridge has the lowest of its ports', another one whenever such a pod comes or
		// goes: what others know of it was wrong then for half a minute, until they asked again.
		add("link add nodes address 02:00:00:00:00:01 type bridge")
		add("addr add %s/24 dev nodes", nodeIP(1))
		add("link set nodes up")
		// Service addresses need a route to be translated at all.
		add("route add default dev nodes")
		for _, j := range c.nodes()[1:] {
			add("link add %s type veth peer name eth0 netns %s", nodeName(j), c.netns(j))
			add("link set %s master nodes up", nodeName(j))
		}
	} else {
		add("addr add %s/24 dev eth0", nodeIP(i))
		add("link set eth0 up")
		add("route add default via %s", nodeIP(1))
	}
	if c.Options.ControlPlaneOnly {
		add("route add local %s dev lo", podNetwork) // the fake kubelet answers for any pod
		add("addr add %s/16 dev nodes", realGateway) // pods that are processes answer for themselves
	}
	for _, j := range c.nodes() {
		if j != i {
			add("route add %s via %s", nodePodRange(j), nodeIP(j))
		}
	}
	return strings.Join(plan, "\n") + "\n"
}
