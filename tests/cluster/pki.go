package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// An authority signs certificates into a folder.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// users are the clients of the API server and how they are known to its
// bootstrap roles.
func (c *cluster) users() map[string]pkix.Name {
	users := map[string]pkix.Name{
		"admin":              {CommonName: "admin", Organization: []string{"system:masters"}},
		"apiserver-kubelet":  {CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		"fake-kubelet":       {CommonName: "fake-kubelet", Organization: []string{"system:masters"}},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"proxy":              {CommonName: "system:kube-proxy"},
	}
	for _, i := range c.nodes() {
		users[nodeName(i)] = pkix.Name{CommonName: "system:node:" + nodeName(i), Organization: []string{"system:nodes"}}
	}
	return users
}

// createPKI makes all keys, certificates and kubeconfigs.
func (c *cluster) createPKI() error {
	dir := c.path("pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(dir, "ca")
	if err != nil {
		return err
	}
	err = ca.sign("apiserver", pkix.Name{CommonName: "kube-apiserver"},
		"127.0.0.1", nodeIP(1), serviceIP, "localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return err
	}
	for _, i := range c.nodes() {
		if err := ca.sign("kubelet-"+nodeName(i), pkix.Name{CommonName: nodeName(i)}, nodeName(i), nodeIP(i)); err != nil {
			return err
		}
	}
	for user, subject := range c.users() {
		if err := ca.sign(user, subject); err != nil {
			return err
		}
		server := fmt.Sprintf("https://%s:%d", nodeIP(1), c.Port)
		if user == "admin" {
			// The same address works outside (forwarded) and on node 1.
			server = fmt.Sprintf("https://127.0.0.1:%d", c.Port)
		}
		if err := c.writeKubeconfig(user, server); err != nil {
			return err
		}
	}
	// The aggregator's authority is another one: were it the same, every
	// client certificate would be a candidate for "proxy, trust its headers".
	frontProxy, err := newAuthority(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := frontProxy.sign("front-proxy", pkix.Name{CommonName: "front-proxy-client"}); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return writeKey(filepath.Join(dir, "service-account.key"), key)
}

func newAuthority(dir, name string) (*authority, error) {
	a := &authority{dir: dir}
	template := certificate(pkix.Name{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	var err error
	a.cert, a.key, err = a.issue(name, template)
	return a, err
}

// sign makes a key and a certificate for servers and clients.
func (a *authority) sign(name string, subject pkix.Name, hosts ...string) error {
	template := certificate(subject)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	_, _, err := a.issue(name, template)
	return err
}

func certificate(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // never fails on Linux
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}
}

func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(filepath.Join(a.dir, name+".crt"), text, 0o644); err != nil {
		return nil, nil, err
	}
	return cert, key, writeKey(filepath.Join(a.dir, name+".key"), key)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func (c *cluster) kubeconfig(user string) string { return c.path(user + ".kubeconfig") }

// writeKubeconfig embeds the certificates: one file is all a user needs.
func (c *cluster) writeKubeconfig(user, server string) error {
	config := clientcmdapi.NewConfig()
	read := func(file string) (data []byte) {
		data, err := os.ReadFile(c.path("pki", file))
		if err != nil {
			panic(err) // written a moment ago
		}
		return data
	}
	config.Clusters[c.name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: read("ca.crt")}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: read(user + ".crt"), ClientKeyData: read(user + ".key")}
	config.Contexts[c.name] = &clientcmdapi.Context{Cluster: c.name, AuthInfo: user}
	config.CurrentContext = c.name
	return clientcmd.WriteToFile(*config, c.kubeconfig(user))
}
