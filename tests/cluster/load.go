package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	pauseImage       = "modelwright.dev/pause:1"
	dnsImage         = "modelwright.dev/coredns:1" // manifests/dns.yaml names it
	s3Image          = "modelwright.dev/versitygw:1.8.0"
	metricsImage     = "modelwright.dev/metrics-server:0.9.0"
	kedaImage        = "modelwright.dev/keda:2.20.2"
	kedaAdapterImage = "modelwright.dev/keda-adapter:2.20.2"
)

// load imports archives on every node.
func load(ctx context.Context, args []string) error {
	name, archives := splitName(args)
	c, err := openRunning(name)
	if err != nil {
		return err
	}
	if c.Options.ControlPlaneOnly {
		return fmt.Errorf("%s has no container runtime", name)
	}
	for _, archive := range archives {
		if err := c.loadEverywhere(ctx, archive); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) loadEverywhere(ctx context.Context, archive string) error {
	for _, i := range c.nodes() {
		if err := c.loadImage(ctx, i, archive); err != nil {
			return err
		}
	}
	return nil
}

// loadImage imports an archive on a node, unless it has that digest already.
func (c *cluster) loadImage(ctx context.Context, node int, archive string) error {
	name, digest, err := archiveName(archive)
	if err != nil {
		return err
	}
	have, err := c.ctr(ctx, node, "images", "ls", "name=="+name)
	if err != nil {
		return err
	}
	if strings.Contains(have, string(digest)) {
		return nil
	}
	archive, err = filepath.Abs(archive)
	if err != nil {
		return err
	}
	// --no-unpack would be quicker now and slower at the first pod.
	_, err = c.ctr(ctx, node, "images", "import", archive)
	return err
}

// ctr talks to a node's containerd, in the namespace the kubelet uses.
func (c *cluster) ctr(ctx context.Context, node int, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", c.socket(node), "--namespace", "k8s.io"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s on %s: %w: %s", args[0], nodeName(node), err, out)
	}
	return string(out), nil
}

// toolImage assembles the image of one tool beside its binary.
func toolImage(ctx context.Context, t tool, name string, say func(string, ...any), entrypoint ...string) (string, error) {
	binary, err := t.build(ctx, say)
	if err != nil {
		return "", err
	}
	archive := binary + ".tar"
	if have, _, err := archiveName(archive); err == nil && have == name {
		return archive, nil
	}
	if len(entrypoint) == 0 {
		entrypoint = []string{"/" + t.name}
	}
	_, err = imageSpec{
		name:   name,
		files:  map[string]string{"/" + t.name: binary},
		config: v1.ImageConfig{Entrypoint: entrypoint, User: nonroot, WorkingDir: "/"},
	}.write(archive)
	return archive, err
}

// install brings a tool's image onto every node, and applies its manifest.
func (c *cluster) install(ctx context.Context, t tool, image, manifest string) error {
	archive, err := toolImage(ctx, t, image, c.say)
	if err != nil {
		return err
	}
	if err := c.loadEverywhere(ctx, archive); err != nil {
		return err
	}
	return c.applyFile(ctx, manifest)
}

// s3 starts the S3 store: image, credentials, manifest.
func s3(ctx context.Context, args []string) error {
	name, _ := splitName(args)
	c, err := openRunning(name)
	if err != nil {
		return err
	}
	if err := c.install(ctx, versitygwTool, s3Image, "manifests/s3.yaml"); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, "", "-n", "s3", "get", "secret", "root"); err != nil {
		_, err := c.kubectl(ctx, "", "-n", "s3", "create", "secret", "generic", "root",
			"--from-literal=AWS_ACCESS_KEY_ID="+randomHex(10), "--from-literal=AWS_SECRET_ACCESS_KEY="+randomHex(20))
		if err != nil {
			return err
		}
	}
	c.say("waiting for the S3 store")
	if err := c.rolledOut(ctx, "s3", "versitygw"); err != nil {
		return err
	}
	fmt.Println("http://versitygw.s3.svc.cluster.local:7070")
	return nil
}

// metricsServer starts what kubectl top and a HorizontalPodAutoscaler ask.
func metricsServer(ctx context.Context, args []string) error {
	name, _ := splitName(args)
	c, err := openRunning(name)
	if err != nil {
		return err
	}
	if err := c.install(ctx, metricsTool, metricsImage, "manifests/metrics-server.yaml"); err != nil {
		return err
	}
	c.say("waiting for the second measurement, 10 s after the first")
	if err := c.rolledOut(ctx, "kube-system", "metrics-server"); err != nil {
		return err
	}
	return c.register(ctx, "v1beta1.metrics.k8s.io", "manifests/metrics-api.yaml")
}

// keda starts what makes a HorizontalPodAutoscaler of a ScaledObject, and
// does the way to zero and back itself.
func keda(ctx context.Context, args []string) error {
	name, _ := splitName(args)
	c, err := openRunning(name)
	if err != nil {
		return err
	}
	module, err := kedaTool.download(ctx)
	if err != nil {
		return err
	}
	// It watches each of these types, and ends where one is missing.
	types := filepath.Join(module, "config", "crd", "bases")
	for _, args := range [][]string{
		{"apply", "--server-side", "--force-conflicts", "-f", types},
		{"wait", "--for=condition=Established", "-f", types, "--timeout=1m"},
	} {
		if _, err := c.kubectl(ctx, "", args...); err != nil {
			return err
		}
	}
	if err := c.install(ctx, kedaTool, kedaImage, "manifests/keda.yaml"); err != nil {
		return err
	}
	c.say("waiting for KEDA and the certificates that it makes")
	if err := c.rolledOut(ctx, "keda", "keda-operator"); err != nil {
		return err
	}
	if err := c.install(ctx, kedaAdapterTool, kedaAdapterImage, "manifests/keda-adapter.yaml"); err != nil {
		return err
	}
	if err := c.rolledOut(ctx, "keda", "keda-metrics-apiserver"); err != nil {
		return err
	}
	return c.register(ctx, "v1beta1.external.metrics.k8s.io", "manifests/keda-api.yaml")
}

func (c *cluster) rolledOut(ctx context.Context, namespace, deployment string) error {
	_, err := c.kubectl(ctx, "", "-n", namespace, "rollout", "status", "deployment/"+deployment, "--timeout=5m")
	return err
}

// register has the API server pass questions on. That is done when somebody
// can answer: until then discovery would fail for everybody, and no namespace
// could be deleted.
func (c *cluster) register(ctx context.Context, api, manifest string) error {
	if err := c.applyFile(ctx, manifest); err != nil {
		return err
	}
	_, err := c.kubectl(ctx, "", "wait", "--for=condition=Available", "apiservice/"+api, "--timeout=5m")
	return err
}
