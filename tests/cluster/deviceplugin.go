package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const gpuResource = "nvidia.com/gpu"

// devicePlugin offers GPUs that do not exist through the kubelet's real API,
// so that scheduling, scarcity and release are real.
func devicePlugin(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("device-plugin", flag.ContinueOnError)
	dir := f.String("dir", "", "the kubelet's folder for plugins")
	count := f.Int("count", 1, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := serveDevices(ctx, *dir, *count); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// serveDevices registers and serves until the kubelet starts anew, which it
// tells by emptying the folder.
func serveDevices(ctx context.Context, dir string, count int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kubelet := filepath.Join(dir, "kubelet.sock")
	if !exists(kubelet) {
		return nil
	}
	socket := filepath.Join(dir, "gpu.sock")
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	plugin.RegisterDevicePluginServer(server, &devices{count: count, done: ctx.Done()})
	go server.Serve(l)
	defer server.Stop()

	conn, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	timeout, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	_, err = plugin.NewRegistrationClient(conn).Register(timeout, &plugin.RegisterRequest{
		Version: plugin.Version, Endpoint: filepath.Base(socket), ResourceName: gpuResource,
	})
	if err != nil {
		return fmt.Errorf("registering with the kubelet: %w", err)
	}
	fmt.Fprintf(os.Stderr, "registered %d %s\n", count, gpuResource)
	for exists(socket) && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

type devices struct {
	plugin.UnimplementedDevicePluginServer
	count int
	done  <-chan struct{}
}

func (d *devices) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

func (d *devices) ListAndWatch(_ *plugin.Empty, stream grpc.ServerStreamingServer[plugin.ListAndWatchResponse]) error {
	var list []*plugin.Device
	for i := range d.count {
		list = append(list, &plugin.Device{ID: fmt.Sprintf("GPU-fake-%d", i), Health: plugin.Healthy})
	}
	if err := stream.Send(&plugin.ListAndWatchResponse{Devices: list}); err != nil {
		return err
	}
	select { // nothing ever changes
	case <-d.done:
	case <-stream.Context().Done():
	}
	return nil
}

func (d *devices) Allocate(_ context.Context, request *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	response := &plugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &plugin.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return response, nil
}
