package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"
)

// options are what the user may choose of a cluster.
type options struct {
	ControlPlaneOnly       bool
	Nodes                  int
	GPUs                   int // per node
	Audit                  bool
	FakeTerminationMessage string
	FakeState              string
	RealProcesses          string
}

// parseUp reads "NAME [flags]". The second result holds the flags that were
// given: a running cluster keeps the others as they are.
func parseUp(args []string) (name string, o options, given map[string]bool, err error) {
	name, rest := splitName(args)
	f := flag.NewFlagSet("cluster up NAME", flag.ContinueOnError)
	f.BoolVar(&o.ControlPlaneOnly, "control-plane-only", false, "no kubelet: pods are made ready by a fake one")
	f.IntVar(&o.Nodes, "nodes", 1, "number of nodes")
	f.IntVar(&o.GPUs, "gpus", 0, "nvidia.com/gpu that each node offers (fake devices)")
	f.BoolVar(&o.Audit, "audit", false, "write an audit log (metadata of every request)")
	f.StringVar(&o.FakeTerminationMessage, "fake-termination-message", "", "control plane only: `file` with what a container resolve leaves")
	f.StringVar(&o.FakeState, "fake-state", "", "control plane only: `file` that pods serve at :8081/modelwright/v1/state")
	f.StringVar(&o.RealProcesses, "real-processes", "", "control plane only: `folder` of programs; pods of images process.test/… run them")
	if err = f.Parse(rest); err != nil {
		return
	}
	given = map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
		return
	}
	for _, file := range []*string{&o.FakeTerminationMessage, &o.FakeState, &o.RealProcesses} {
		if *file != "" {
			if *file, err = filepath.Abs(*file); err != nil {
				return
			}
		}
	}
	err = o.validate()
	return
}

func (o options) validate() error {
	switch {
	case o.Nodes < 1 || o.Nodes > 9:
		return fmt.Errorf("--nodes %d: want 1 to 9", o.Nodes)
	case o.GPUs < 0 || o.GPUs > 64:
		return fmt.Errorf("--gpus %d: want 0 to 64", o.GPUs)
	case o.ControlPlaneOnly && o.Nodes > 1:
		return fmt.Errorf("a cluster of the control plane only has one (fake) node")
	case !o.ControlPlaneOnly && (o.FakeState != "" || o.FakeTerminationMessage != "" || o.RealProcesses != ""):
		return fmt.Errorf("--fake-* and --real-processes need --control-plane-only")
	}
	return nil
}

// conflict names the given flags in which a running cluster differs.
func (o options) conflict(running options, given map[string]bool) error {
	var differ []string
	check := func(flag string, want, have any) {
		if given[flag] && want != have {
			differ = append(differ, fmt.Sprintf("--%s=%v (it has %v)", flag, want, have))
		}
	}
	check("control-plane-only", o.ControlPlaneOnly, running.ControlPlaneOnly)
	check("nodes", o.Nodes, running.Nodes)
	check("gpus", o.GPUs, running.GPUs)
	check("audit", o.Audit, running.Audit)
	check("fake-termination-message", o.FakeTerminationMessage, running.FakeTerminationMessage)
	check("fake-state", o.FakeState, running.FakeState)
	check("real-processes", o.RealProcesses, running.RealProcesses)
	if differ == nil {
		return nil
	}
	return fmt.Errorf("it runs already, without %s; end it first (make cluster-down)", strings.Join(differ, ", "))
}

// splitName takes the cluster's name off the front, if it is there.
func splitName(args []string) (string, []string) {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return defaultName, args
	}
	return args[0], args[1:]
}
