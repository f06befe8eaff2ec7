package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"strings"
	"text/template"
)

//go:embed config manifests
var files embed.FS

func (c *cluster) cniNetwork() string { return "modelwright-" + c.name }

// nodeDir holds what is one node's own.
func (c *cluster) nodeDir(i int) string { return c.path(nodeName(i)) }

func (c *cluster) socket(i int) string { return c.nodeDir(i) + "/containerd.sock" }

func onNode(kind string, i int) string { return kind + "-" + nodeName(i) }

// writeNodeConfig renders config/ for a node.
func (c *cluster) writeNodeConfig(i int) error {
	dir := c.nodeDir(i)
	values := map[string]string{
		"Dir": dir, "Node": nodeName(i), "PKI": c.path("pki"),
		"PauseImage": pauseImage,
		"Network":    c.cniNetwork(), "PodRange": nodePodRange(i), "PodNetwork": podNetwork,
		"Cgroup": "/" + c.cgroup() + "/" + nodeName(i),
		"DNS":    dnsIP, "Kubeconfig": c.kubeconfig("proxy"),
	}
	for source, target := range map[string]string{
		"containerd.toml": "containerd.toml",
		"cni.conflist":    "cni/10-pods.conflist",
		"kubelet.yaml":    "kubelet.yaml",
		"proxy.yaml":      "proxy.yaml",
	} {
		text, err := render("config/"+source, values)
		if err != nil {
			return err
		}
		if err := writeFile(dir+"/"+target, text); err != nil {
			return err
		}
	}
	return writeFile(dir+"/resolv.conf", "")
}

func render(file string, values map[string]string) (string, error) {
	t, err := template.ParseFS(files, file)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Option("missingkey=error").Execute(&text, values)
	return text.String(), err
}

// startRuntime starts containerd and loads the images that every node has.
func (c *cluster) startRuntime(ctx context.Context, i int, images []string) error {
	name := onNode("containerd", i)
	if err := os.MkdirAll(c.nodeDir(i), 0o755); err != nil {
		return err
	}
	started, err := c.start(process{name: name, node: i, mounts: true, argv: []string{"containerd", "--config", c.nodeDir(i) + "/containerd.toml"}})
	if err != nil {
		return err
	}
	ready := func(ctx context.Context) error {
		_, err := c.ctr(ctx, i, "version")
		return err
	}
	if started {
		if err := c.await(ctx, name, patience, name, []string{name}, ready); err != nil {
			return err
		}
	}
	for _, image := range images {
		if err := c.loadImage(ctx, i, image); err != nil {
			return c.failure(name, err)
		}
	}
	return nil
}

// startNode starts what joins a node with a runtime to the cluster.
func (c *cluster) startNode(i int) error {
	k8s, err := kubernetesTool.path()
	if err != nil {
		return err
	}
	dir := c.nodeDir(i)
	list := []process{
		{name: onNode("kubelet", i), node: i, mounts: true, argv: []string{k8s, "kubelet",
			"--config=" + dir + "/kubelet.yaml",
			"--kubeconfig=" + c.kubeconfig(nodeName(i)),
			"--hostname-override=" + nodeName(i),
			"--node-ip=" + nodeIP(i),
			"--cert-dir=" + dir + "/kubelet-pki",
		}},
		{name: onNode("kube-proxy", i), node: i, argv: []string{k8s, "kube-proxy", "--config=" + dir + "/proxy.yaml"}},
	}
	if c.Options.GPUs > 0 {
		list = append(list, process{name: onNode("device-plugin", i), node: i, mounts: true, inner: true, argv: []string{"device-plugin",
			"--dir=/var/lib/kubelet/device-plugins",
			fmt.Sprintf("--count=%d", c.Options.GPUs),
		}})
	}
	for _, p := range list {
		if _, err := c.start(p); err != nil {
			return err
		}
	}
	return nil
}
