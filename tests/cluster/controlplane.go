package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// controlPlane lists the processes that a cluster of any kind has, without
// the forwarder.
func (c *cluster) controlPlane() (etcd, apiserver process, clients []process, err error) {
	k8s, err := kubernetesTool.path()
	if err != nil {
		return
	}
	pki := func(file string) string { return c.path("pki", file) }

	// Plain HTTP on the namespace's loopback. Nothing here is worth an fsync.
	etcd = process{name: "etcd", node: 1, argv: []string{k8s, "etcd",
		"--data-dir=" + c.path("etcd"),
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--unsafe-no-fsync",
		"--log-level=warn",
	}}

	apiserver = process{name: "kube-apiserver", node: 1, argv: []string{k8s, "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		fmt.Sprintf("--secure-port=%d", c.Port),
		"--advertise-address=" + nodeIP(1),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--tls-cert-file=" + pki("apiserver.crt"),
		"--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + pki("service-account.key"),
		"--service-account-signing-key-file=" + pki("service-account.key"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		// Node names are not in any DNS.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + pki("apiserver-kubelet.key"),
		// For aggregated APIs such as metrics-server.
		"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki("front-proxy.crt"),
		"--proxy-client-key-file=" + pki("front-proxy.key"),
	}}
	if c.Options.Audit {
		apiserver.argv = append(apiserver.argv,
			"--audit-policy-file="+c.path("audit.yaml"),
			"--audit-log-path="+c.auditLog(),
			"--audit-log-maxsize=100000") // one file: whoever counts requests wants all
	}

	// The default 20 requests a second would be what a test measures.
	manager := process{name: "kube-controller-manager", node: 1, argv: []string{k8s, "kube-controller-manager",
		"--kubeconfig=" + c.kubeconfig("controller-manager"),
		"--service-account-private-key-file=" + pki("service-account.key"),
		"--root-ca-file=" + pki("ca.crt"),
		"--cluster-signing-cert-file=" + pki("ca.crt"),
		"--cluster-signing-key-file=" + pki("ca.key"),
		"--use-service-account-credentials",
		"--leader-elect=false",
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		// Every 15 s is the default, and a test of an HPA would wait for it.
		"--horizontal-pod-autoscaler-sync-period=2s",
	}}
	if c.Options.ControlPlaneOnly {
		// Nobody renews the fake node's lease, and nothing serves metrics.
		manager.argv = append(manager.argv, "--controllers=*,-horizontal-pod-autoscaler-controller,-node-lifecycle-controller,-taint-eviction-controller")
		fake := process{name: "fake-kubelet", node: 1, inner: true, argv: []string{"fake-kubelet",
			"--kubeconfig=" + c.kubeconfig("fake-kubelet"),
			fmt.Sprintf("--gpus=%d", c.Options.GPUs),
			"--termination-message-file=" + c.Options.FakeTerminationMessage,
			"--state-file=" + c.Options.FakeState,
			"--programs=" + c.Options.RealProcesses,
			"--dir=" + c.dir,
		}}
		return etcd, apiserver, []process{manager, fake}, nil
	}
	scheduler := process{name: "kube-scheduler", node: 1, argv: []string{k8s, "kube-scheduler",
		"--kubeconfig=" + c.kubeconfig("scheduler"),
		"--leader-elect=false",
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	}}
	return etcd, apiserver, []process{manager, scheduler}, nil
}

func (c *cluster) auditLog() string { return c.path("log", "audit.log") }

// startForwarder opens the API server's port outside and hands it to a
// process inside, so that plain kubectl works.
func (c *cluster) startForwarder(l net.Listener) error {
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = c.start(process{name: "forward", node: 1, inner: true, extra: []*os.File{file},
		argv: []string{"forward", fmt.Sprintf("%s:%d", nodeIP(1), c.Port)}})
	return err
}

// link makes bin/, the folder for the user's PATH.
func (c *cluster) link(targets map[string]string) error {
	if err := os.MkdirAll(c.path("bin"), 0o755); err != nil {
		return err
	}
	for name, target := range targets {
		link := filepath.Join(c.path("bin"), name)
		if current, _ := os.Readlink(link); current == target {
			continue
		}
		os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	return nil
}
