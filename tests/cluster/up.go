package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func up(ctx context.Context, args []string) error {
	name, wanted, given, err := parseUp(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := openCluster(name)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, for network namespaces and mounts")
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	// What was read before the lock may be of a cluster that is gone now.
	if c, err = openCluster(name); err != nil {
		return err
	}
	begin := time.Now()
	if c.Port != 0 && c.Boot == bootID() && c.namespacesExist() {
		if err := wanted.conflict(c.Options, given); err != nil {
			return err
		}
	} else {
		if exists(c.dir) {
			c.say("removing the remains of an earlier one")
			if err := c.destroy(); err != nil {
				return err
			}
		}
		c.Options = wanted
	}
	err = c.ensure(ctx)
	for errors.Is(err, errVanished) {
		err = c.ensure(ctx)
	}
	if err != nil {
		return err
	}
	c.say("ready after %.1f s", time.Since(begin).Seconds())
	return printEnv(c)
}

func (c *cluster) namespacesExist() bool {
	mounts, _ := mountsBelow(c.path("ns"))
	return len(mounts) >= len(c.nodes())
}

// ensure brings a cluster from any state that openCluster accepts to ready.
// Every step looks first, so that a healthy cluster costs a few reads, and a
// broken one gets back what it lacks.
func (c *cluster) ensure(ctx context.Context) error {
	if err := installPackages(ctx, c.say, packages(c.Options.ControlPlaneOnly)); err != nil {
		return err
	}
	images, err := c.buildTools(ctx)
	if err != nil {
		return err
	}
	var listener net.Listener
	if c.running("forward") == 0 {
		c.letGo("forward")
		if listener, err = c.listenForAPI(); err != nil {
			return err
		}
		defer listener.Close()
	}
	if c.Port == 0 {
		c.Port = listener.Addr().(*net.TCPAddr).Port
		if err := c.create(ctx); err != nil {
			return err
		}
	}
	if listener != nil {
		if err := c.startForwarder(listener); err != nil {
			return err
		}
	}

	etcd, apiserver, clients, err := c.controlPlane()
	if err != nil {
		return err
	}
	for _, p := range []process{etcd, apiserver} { // it retries until etcd answers
		if _, err := c.start(p); err != nil {
			return err
		}
	}
	// Importing images takes a second that the API server takes too.
	runtimes := make(chan error, 1)
	go func() { runtimes <- c.startRuntimes(ctx, images) }()

	client, err := c.client()
	if err != nil {
		return err
	}
	needs := []string{"kube-apiserver", "etcd", "forward"}
	err = c.await(ctx, "the API server", patience, needs[0], needs, func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if err != nil {
		<-runtimes
		return err
	}
	for _, p := range clients {
		if _, err := c.start(p); err != nil {
			<-runtimes
			return err
		}
	}
	if err := <-runtimes; err != nil {
		return err
	}
	if !c.Options.ControlPlaneOnly {
		for _, i := range c.nodes() {
			if err := c.startNode(i); err != nil {
				return err
			}
		}
		if err := c.ensureDNS(ctx, client); err != nil {
			return err
		}
	}
	if err := c.awaitNodes(ctx, client); err != nil {
		return err
	}
	if c.Options.ControlPlaneOnly {
		return nil
	}
	needs = []string{onNode("kubelet", 1), onNode("kube-proxy", 1), "kube-controller-manager", "kube-scheduler"}
	return c.await(ctx, "cluster DNS", patience, "coredns", needs, func(ctx context.Context) error {
		_, err := c.inside(ctx, 1, "", "/proc/self/exe", "lookup", "kubernetes.default.svc.cluster.local")
		return err
	})
}

// buildTools returns the archives of the images that nodes need.
func (c *cluster) buildTools(ctx context.Context) (images []string, err error) {
	k8s, err := kubernetesTool.build(ctx, c.say)
	if err != nil {
		return nil, err
	}
	helmPath, err := helm(ctx, c.say)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := c.link(map[string]string{"kubectl": k8s, "helm": helmPath, "cluster": self}); err != nil {
		return nil, err
	}
	if c.Options.ControlPlaneOnly {
		return nil, nil
	}
	for _, t := range []struct {
		tool tool
		name string
	}{{pauseTool, pauseImage}, {corednsTool, dnsImage}} {
		archive, err := toolImage(ctx, t.tool, t.name, c.say)
		if err != nil {
			return nil, err
		}
		images = append(images, archive)
	}
	return images, nil
}

// create makes all that processes find when they start.
func (c *cluster) create(ctx context.Context) error {
	for _, dir := range []string{"log", "run", "etcd"} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return err
		}
	}
	policy, err := files.ReadFile("config/audit.yaml")
	if err != nil {
		return err
	}
	if err := writeFile(c.path("audit.yaml"), string(policy)); err != nil {
		return err
	}
	if err := c.createPKI(); err != nil {
		return err
	}
	if !c.Options.ControlPlaneOnly {
		for _, i := range c.nodes() {
			if err := c.writeNodeConfig(i); err != nil {
				return err
			}
		}
	}
	if err := c.createCgroups(); err != nil {
		return err
	}
	if err := c.createNamespaces(); err != nil {
		return err
	}
	if err := c.createNetworks(ctx); err != nil {
		return err
	}
	c.Boot = bootID()
	return c.save()
}

func (c *cluster) startRuntimes(ctx context.Context, images []string) error {
	if c.Options.ControlPlaneOnly {
		return nil
	}
	for _, i := range c.nodes() {
		if err := c.startRuntime(ctx, i, images); err != nil {
			return err
		}
	}
	return nil
}

// ensureDNS applies the manifest once; afterwards it is the cluster's.
func (c *cluster) ensureDNS(ctx context.Context, client kubernetes.Interface) error {
	if _, err := client.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{}); err == nil {
		return nil
	}
	return c.applyFile(ctx, "manifests/dns.yaml")
}

// awaitNodes waits until every node is Ready and offers its devices.
func (c *cluster) awaitNodes(ctx context.Context, client kubernetes.Interface) error {
	for _, i := range c.nodes() {
		needs := []string{onNode("kubelet", i), onNode("containerd", i)}
		if c.Options.ControlPlaneOnly {
			needs = []string{"fake-kubelet"}
		} else if c.Options.GPUs > 0 {
			needs = append(needs, onNode("device-plugin", i))
		}
		err := c.await(ctx, nodeName(i), patience, needs[0], needs, func(ctx context.Context) error {
			node, err := client.CoreV1().Nodes().Get(ctx, nodeName(i), metav1.GetOptions{})
			if err != nil {
				return err
			}
			if gpus := node.Status.Allocatable[gpuResource]; gpus.Value() < int64(c.Options.GPUs) {
				return fmt.Errorf("it offers %s of %d %s", gpus.String(), c.Options.GPUs, gpuResource)
			}
			return nodeReady(node)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func nodeReady(node *corev1.Node) error {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return errors.New(condition.Message)
		} else if condition.Type == corev1.NodeReady {
			return nil
		}
	}
	return errors.New("it has not reported yet")
}
