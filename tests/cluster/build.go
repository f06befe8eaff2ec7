package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A tool is a program built from pinned Go modules: a folder here with its
// own go.mod and go.sum, so that one tool's dependencies never move another's.
type tool struct {
	name    string
	folder  string // absent: the name
	module  string // whose version go.mod pins
	pkg     string // what to build; "." is the folder's own
	ldflags string // VERSION stands for the pinned version
	takes   string
}

var (
	kubernetesTool = tool{name: "kubernetes", module: "k8s.io/kubernetes", pkg: ".", takes: "6 minutes",
		// The parts would say v0.0.0, and refuse each other for the skew.
		ldflags: "-X k8s.io/component-base/version.gitVersion=VERSION -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35"}
	corednsTool   = tool{name: "coredns", module: "github.com/coredns/coredns", pkg: ".", takes: "1 minute"}
	versitygwTool = tool{name: "versitygw", module: "github.com/versity/versitygw", pkg: "github.com/versity/versitygw/cmd/versitygw", takes: "2 minutes",
		ldflags: "-X main.Version=VERSION"}
	metricsTool = tool{name: "metrics-server", module: "sigs.k8s.io/metrics-server", pkg: "sigs.k8s.io/metrics-server/cmd/metrics-server", takes: "2 minutes"}
	// They share a version, a lock file and most packages: the second takes half a minute.
	kedaTool        = kedaProgram("keda", "operator", "3 minutes")
	kedaAdapterTool = kedaProgram("keda-adapter", "adapter", "half a minute")
	helmTool        = tool{name: "helm", module: "helm.sh/helm/v4", pkg: "helm.sh/helm/v4/cmd/helm", takes: "4 minutes",
		ldflags: "-X helm.sh/helm/v4/internal/version.version=VERSION"}
	pauseTool = tool{name: "pause", pkg: "./pause", takes: "seconds"}
)

func kedaProgram(name, command, takes string) tool {
	const module = "github.com/kedacore/keda/v2"
	return tool{name: name, folder: "keda", module: module, pkg: module + "/cmd/" + command, takes: takes,
		ldflags: "-X " + module + "/version.Version=VERSION"}
}

// sourceDir is tests/cluster: the programs are built where this one was.
var sourceDir = func() string {
	if dir := os.Getenv("MODELWRIGHT_CLUSTER_SOURCE"); dir != "" {
		return dir
	}
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}()

// dir is the tool's module. pause has no dependency, hence no module of its own.
func (t tool) dir() string {
	if t.module == "" {
		return sourceDir
	}
	return t.sources()
}

func (t tool) sources() string {
	return filepath.Join(sourceDir, cmp.Or(t.folder, t.name))
}

// path is where the binary is or will be: the folder's name has the hash of
// its sources and lock file, so a change builds anew and a switch back doesn't.
func (t tool) path() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache")
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, t.ldflags)
	sources, err := filepath.Glob(filepath.Join(t.sources(), "*"))
	if err != nil || len(sources) == 0 {
		return "", fmt.Errorf("no sources of %s in %s", t.name, sourceDir)
	}
	for _, file := range sources {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %x\n", filepath.Base(file), sha256.Sum256(data))
	}
	return filepath.Join(cache, "modelwright", t.name+"-"+hex.EncodeToString(sum.Sum(nil))[:16], t.name), nil
}

// version reads the pinned version from go.mod.
func (t tool) version() (string, error) {
	mod, err := os.ReadFile(filepath.Join(t.dir(), "go.mod"))
	if err != nil {
		return "", err
	}
	match := regexp.MustCompile(`(?m)^(?:require)?\s+` + regexp.QuoteMeta(t.module) + ` (\S+)`).FindSubmatch(mod)
	if match == nil {
		return "", fmt.Errorf("%s is not in %s/go.mod", t.module, t.dir())
	}
	return string(match[1]), nil
}

// download returns the folder of the pinned module's files, for what a build has no part of.
func (t tool) download(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", t.module)
	cmd.Dir = t.dir()
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output() // a failure is said here, too
	var module struct{ Dir, Error string }
	if json.Unmarshal(out, &module) != nil || module.Dir == "" {
		return "", fmt.Errorf("downloading %s: %v %s", t.module, err, module.Error)
	}
	return module.Dir, nil
}

// build returns the binary and builds it first if it isn't there.
func (t tool) build(ctx context.Context, say func(string, ...any)) (string, error) {
	binary, err := t.path()
	if err != nil || exists(binary) {
		return binary, err
	}
	folder := filepath.Dir(binary)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	// Two builds of Kubernetes at once help nobody.
	lock, err := os.OpenFile(folder+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil || exists(binary) {
		return binary, err
	}
	ldflags := "-s -w " + t.ldflags
	if t.module != "" {
		version, err := t.version()
		if err != nil {
			return "", err
		}
		ldflags = strings.ReplaceAll(ldflags, "VERSION", version)
		say("building %s %s (once; about %s on two cores)", t.name, version, t.takes)
	}
	begin := time.Now()
	temporary := binary + ".new"
	var out []byte
	for range 3 { // the module proxy may fail
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", temporary, t.pkg)
		cmd.Dir = t.dir()
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err = cmd.CombinedOutput(); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", t.name, err, out)
	}
	if took := time.Since(begin); took > 10*time.Second {
		say("built %s in %s", t.name, took.Round(time.Second))
	}
	return binary, os.Rename(temporary, binary)
}

// helm prefers the user's own.
func helm(ctx context.Context, say func(string, ...any)) (string, error) {
	path, err := exec.LookPath("helm")
	if err == nil {
		// In a cluster's own environment it is the link that is about to be made: to itself, then.
		path, err = filepath.EvalSymlinks(path)
	}
	if err == nil {
		out, err := exec.CommandContext(ctx, path, "version", "--short").Output()
		if err == nil && helmMajor(string(out)) >= 3 {
			return path, nil
		}
	}
	return helmTool.build(ctx, say)
}

func helmMajor(version string) (major int) {
	fmt.Sscanf(strings.TrimSpace(version), "v%d", &major)
	return major
}

// packages lists what Debian has and we don't build: a file that proves the
// package is there, and its name.
func packages(controlPlaneOnly bool) map[string]string {
	if controlPlaneOnly {
		return map[string]string{"ip": "iproute2"}
	}
	return map[string]string{
		"ip":                  "iproute2",
		"containerd":          "containerd",
		"runc":                "runc",
		"/usr/lib/cni/ptp":    "containernetworking-plugins",
		"/usr/sbin/nft":       "nftables",
		"/usr/sbin/iptables":  "iptables", // the portmap plugin calls it
		"/usr/sbin/conntrack": "conntrack",
		"mount":               "mount",
	}
}

func installPackages(ctx context.Context, say func(string, ...any), wanted map[string]string) error {
	var missing []string
	for file, name := range wanted {
		if _, err := exec.LookPath(file); errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil
	}
	say("installing %s", strings.Join(missing, " "))
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...)} {
		args = append([]string{"-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=120"}, args...)
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s\ninstall %s yourself", cmd, err, out, strings.Join(missing, " "))
		}
	}
	return nil
}
