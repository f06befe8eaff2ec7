package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A realContainer is a process of its pod.
type realContainer struct {
	spec      corev1.Container
	process   *os.Process // nil: it does not run
	since     metav1.Time
	ready     bool
	failures  int32 // of the probe, in a row
	nextProbe time.Time
	restarts  int32
	ended     *corev1.ContainerStateTerminated // of the last run
	again     time.Time                        // when it is started again; zero: never
}

const restartDelay = time.Second

// commandOf is what a container runs: a program, by its name, and arguments.
// An image's entrypoint is the program that has the image's name. No machine
// here has a GPU: who asks for one gets the CPU.
func commandOf(c corev1.Container) (program string, args []string) {
	if len(c.Command) > 0 {
		return path.Base(c.Command[0]), append(c.Command[1:len(c.Command):len(c.Command)], c.Args...)
	}
	name, _, _ := strings.Cut(path.Base(c.Image), ":")
	for _, arg := range c.Args {
		if arg != "--execution-provider=CUDA" {
			args = append(args, arg)
		}
	}
	return name, args
}

// fileFlags tell our programs where their files are: in a container they
// would find them where the volumes are mounted.
func fileFlags(c corev1.Container, volume func(name string) string, message string) []string {
	mounted := func(at string) string {
		for _, mount := range c.VolumeMounts {
			if mount.MountPath == at {
				return volume(mount.Name)
			}
		}
		return ""
	}
	program, args := commandOf(c)
	switch {
	case program != "modelwright-loader" && program != "modelwright-server" || len(args) == 0:
		return nil
	case args[0] == "resolve":
		return []string{"--report=" + message}
	default:
		return []string{"--assignment=" + mounted("/etc/modelwright/pod") + "/assignment", "--models=" + mounted("/models")}
	}
}

func (p *realPod) message(c *realContainer) string { return p.path("message-" + c.spec.Name) }

func (p *realPod) start(c *realContainer) {
	c.since, c.again, c.failures, c.nextProbe = metav1.Now(), time.Time{}, 0, time.Time{}
	c.ready = c.spec.ReadinessProbe == nil
	cmd, err := p.spawn(c)
	if err != nil {
		p.say(err)
		p.exited(c, -1)
		return
	}
	c.process = cmd.Process
	go func() {
		cmd.Wait()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it leaves behind
		p.events <- func() { p.exited(c, cmd.ProcessState.ExitCode()) }
	}()
}

func (p *realPod) spawn(c *realContainer) (*exec.Cmd, error) {
	program, args := commandOf(c.spec)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(p.of.logs, strings.ReplaceAll(p.key, "/", "_")+"_"+c.spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	argv := []string{"enter", "--net", p.network.path(), "--", filepath.Join(p.of.programs, program)}
	argv = append(append(argv, args...), fileFlags(c.spec, p.volume, p.message(c))...)
	cmd := exec.Command(self, argv...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.path(), log, log
	cmd.Env = p.environment(c.spec)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, cmd.Start()
}

// inherited are the variables that stand for what an image would have.
var inherited = []string{"PATH", "ORT_DYLIB_PATH"}

func (p *realPod) environment(c corev1.Container) (list []string) {
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			list = append(list, name+"="+value)
		}
	}
	if file := p.path("kubeconfig"); exists(file) {
		list = append(list, "KUBECONFIG="+file)
	}
	for _, variable := range c.Env {
		value := variable.Value
		if from := variable.ValueFrom; from != nil && from.FieldRef != nil {
			value = fieldOf(p.pod, from.FieldRef.FieldPath)
		}
		list = append(list, variable.Name+"="+value)
	}
	return list
}

func (p *realPod) exited(c *realContainer, code int) {
	content, _ := os.ReadFile(p.message(c))
	c.process, c.ready = nil, false
	c.ended = &corev1.ContainerStateTerminated{
		ExitCode: int32(code), Reason: "Completed", Message: string(content), StartedAt: c.since, FinishedAt: metav1.Now(),
	}
	if code != 0 {
		c.ended.Reason = "Error"
	}
	policy := p.pod.Spec.RestartPolicy
	if !p.leaving && (policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && code != 0) {
		c.again = time.Now().Add(restartDelay)
	}
}

func (p *realPod) restart() {
	for _, c := range p.containers {
		if !p.leaving && c.process == nil && !c.again.IsZero() && time.Now().After(c.again) {
			c.restarts++
			p.start(c)
		}
	}
}

func (p *realPod) signal(signal syscall.Signal) {
	for _, c := range p.containers {
		switch {
		case c.process == nil:
			c.again = time.Time{}
		case signal == syscall.SIGKILL:
			syscall.Kill(-c.process.Pid, signal)
		default:
			c.process.Signal(signal)
		}
	}
}

func (c *realContainer) probed(ok bool) {
	if ok {
		c.ready, c.failures = true, 0
		return
	}
	if c.failures++; c.failures >= max(1, c.spec.ReadinessProbe.FailureThreshold) {
		c.ready = false
	}
}

func (c *realContainer) status(pod types.UID) corev1.ContainerStatus {
	runs := c.process != nil
	status := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, RestartCount: c.restarts,
		ContainerID: fmt.Sprintf("process://%s/%s/%d", pod, c.spec.Name, c.restarts),
		Ready:       c.ready, Started: &runs,
	}
	switch {
	case runs:
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: c.since}
	case c.again.IsZero():
		status.State.Terminated = c.ended
		return status
	default:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
	}
	status.LastTerminationState.Terminated = c.ended
	return status
}

// apiAccess is how a pod reaches the API server: by the node's address, since
// nothing translates that of the Service.
type apiAccess struct {
	server string
	ca     []byte
}

func newAPIAccess(config *rest.Config) (apiAccess, error) {
	_, port, ok := strings.Cut(strings.TrimPrefix(config.Host, "https://"), ":")
	if !ok || len(config.CAData) == 0 {
		return apiAccess{}, errors.New("the kubeconfig names no port, or no authority")
	}
	return apiAccess{fmt.Sprintf("https://%s:%s", nodeIP(1), port), config.CAData}, nil
}

// write makes a kubeconfig of the pod's ServiceAccount, unless the pod wants
// no token.
func (a apiAccess) write(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, file string) error {
	if mount := pod.Spec.AutomountServiceAccountToken; mount != nil && !*mount {
		return nil
	}
	day := int64(24 * 3600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &day,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	answer, err := client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["here"] = &clientcmdapi.Cluster{Server: a.server, CertificateAuthorityData: a.ca}
	config.AuthInfos["pod"] = &clientcmdapi.AuthInfo{Token: answer.Status.Token}
	config.Contexts["here"] = &clientcmdapi.Context{Cluster: "here", AuthInfo: "pod", Namespace: pod.Namespace}
	config.CurrentContext = "here"
	return clientcmd.WriteToFile(*config, file)
}
