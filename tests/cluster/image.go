package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// An imageSpec says what an image holds and how it starts. Nothing is taken
// over from the files but their bytes and whether they can be executed.
type imageSpec struct {
	name    string
	files   map[string]string // path in the image: path here
	libsOf  []string
	config  v1.ImageConfig
	caCerts bool
}

const nonroot = "65532"

var epoch = time.Unix(0, 0).UTC()

// image assembles an image from flags and prints its digest.
func image(_ context.Context, args []string) error {
	f := flag.NewFlagSet("cluster image", flag.ContinueOnError)
	s := imageSpec{files: map[string]string{}}
	f.StringVar(&s.name, "name", "", "the image's `name:tag`")
	out := f.String("out", "", "the archive to write")
	f.Func("file", "`/in/image=path`: a file, or a folder with all below it", func(v string) error {
		to, from, ok := strings.Cut(v, "=")
		if !ok || !path.IsAbs(to) {
			return fmt.Errorf("want /path/in/image=path")
		}
		s.files[to] = from
		return nil
	})
	list := func(name, help string, to *[]string) {
		f.Func(name, help, func(v string) error { *to = append(*to, v); return nil })
	}
	list("libs-of", "`binary` whose shared libraries the image gets, at the paths ldd finds them", &s.libsOf)
	list("entrypoint", "one `word` of the entry point (repeat)", &s.config.Entrypoint)
	list("arg", "one default `argument` (repeat)", &s.config.Cmd)
	list("env", "`NAME=value`", &s.config.Env)
	f.StringVar(&s.config.User, "user", nonroot, "numeric `uid`")
	f.StringVar(&s.config.WorkingDir, "workdir", "/", "")
	f.BoolVar(&s.caCerts, "ca-certificates", false, "add this machine's certificate authorities")
	if err := f.Parse(args); err != nil {
		return err
	}
	if s.name == "" || *out == "" || len(s.files) == 0 || f.NArg() > 0 {
		return fmt.Errorf("--name, --out and --file are needed, and nothing else but flags")
	}
	digest, err := s.write(*out)
	if err == nil {
		fmt.Println(digest)
	}
	return err
}

// write makes an archive that is an OCI layout and a docker-archive at once:
// containerd reads the first and keeps our digest, Docker reads the second.
// Layers stay uncompressed: nothing is sent over a network, and the digest
// does not depend on a compressor's version.
func (s imageSpec) write(out string) (digest.Digest, error) {
	entries, err := s.entries()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	layer, err := os.CreateTemp(filepath.Dir(out), ".layer-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	sum := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, sum), entries); err != nil {
		return "", err
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return "", err
	}
	layerDigest := digest.NewDigest(digest.SHA256, sum)

	config := v1.Image{
		Created:  &epoch,
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   s.config,
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerDigest}},
		History:  []v1.History{{Created: &epoch, CreatedBy: "cluster image"}},
	}
	configBlob, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	describe := func(mediaType string, blob []byte) v1.Descriptor {
		return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	}
	manifestBlob, err := json.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    describe(v1.MediaTypeImageConfig, configBlob),
		Layers:    []v1.Descriptor{{MediaType: v1.MediaTypeImageLayer, Digest: layerDigest, Size: size}},
	})
	if err != nil {
		return "", err
	}
	manifest := describe(v1.MediaTypeImageManifest, manifestBlob)
	manifest.Annotations = map[string]string{"io.containerd.image.name": s.name, v1.AnnotationRefName: s.name}
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{manifest},
	})
	if err != nil {
		return "", err
	}
	blob := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	docker, err := json.Marshal([]map[string]any{{
		"Config": blob(digest.FromBytes(configBlob)), "RepoTags": []string{s.name}, "Layers": []string{blob(layerDigest)},
	}})
	if err != nil {
		return "", err
	}

	archive, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(archive.Name())
	defer archive.Close()
	t := tar.NewWriter(archive)
	for _, part := range []struct {
		name string
		data []byte
	}{
		{v1.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{v1.ImageIndexFile, index},
		{"manifest.json", docker},
		{blob(manifest.Digest), manifestBlob},
		{blob(digest.FromBytes(configBlob)), configBlob},
	} {
		if err := t.WriteHeader(header(part.name, 0o644, int64(len(part.data)))); err != nil {
			return "", err
		}
		if _, err := t.Write(part.data); err != nil {
			return "", err
		}
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if err := t.WriteHeader(header(blob(layerDigest), 0o644, size)); err != nil {
		return "", err
	}
	if _, err := io.Copy(t, layer); err != nil {
		return "", err
	}
	if err := t.Close(); err != nil {
		return "", err
	}
	if err := archive.Chmod(0o644); err != nil {
		return "", err
	}
	return manifest.Digest, os.Rename(archive.Name(), out)
}

func header(name string, mode, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: epoch, Format: tar.FormatPAX}
}

// An entry is a file of the layer: from a file here, or its content.
type entry struct {
	from    string
	content []byte
	mode    int64
}

// entries collects the layer by path in the image.
func (s imageSpec) entries() (map[string]entry, error) {
	entries := map[string]entry{
		"/etc/passwd": {content: []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:" + nonroot + ":" + nonroot + ":nonroot:/tmp:/sbin/nologin\n"), mode: 0o644},
		"/etc/group":  {content: []byte("root:x:0:\nnonroot:x:" + nonroot + ":\n"), mode: 0o644},
	}
	files := map[string]string{}
	if s.caCerts {
		files["/etc/ssl/certs/ca-certificates.crt"] = "/etc/ssl/certs/ca-certificates.crt"
	}
	for _, binary := range s.libsOf {
		libs, err := sharedLibraries(binary)
		if err != nil {
			return nil, err
		}
		for _, lib := range libs {
			files[lib] = lib
		}
	}
	for to, from := range s.files {
		files[to] = from
	}
	for to, from := range files {
		root, err := filepath.EvalSymlinks(from)
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := os.Stat(file) // a link counts as what it leads to
			if err != nil || info.IsDir() {
				return err
			}
			mode := int64(0o644)
			if info.Mode()&0o111 != 0 {
				mode = 0o755
			}
			below, err := filepath.Rel(root, file)
			entries[path.Join(to, below)] = entry{from: file, mode: mode}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// writeLayer writes the entries and their folders, sorted, owned by root.
func writeLayer(w io.Writer, entries map[string]entry) error {
	modes := map[string]int64{"/tmp": 0o1777}
	var names []string
	for name := range entries {
		names = append(names, name)
		for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
			if modes[dir] == 0 {
				modes[dir] = 0o755
			}
		}
	}
	for dir := range modes {
		names = append(names, dir)
	}
	sort.Strings(names)
	t := tar.NewWriter(w)
	for _, name := range names {
		if mode, isDir := modes[name]; isDir {
			h := header(strings.TrimPrefix(name, "/")+"/", mode, 0)
			h.Typeflag = tar.TypeDir
			if err := t.WriteHeader(h); err != nil {
				return err
			}
			continue
		}
		if err := writeEntry(t, strings.TrimPrefix(name, "/"), entries[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return t.Close()
}

func writeEntry(t *tar.Writer, name string, e entry) error {
	var content io.Reader = bytes.NewReader(e.content)
	size := int64(len(e.content))
	if e.from != "" {
		f, err := os.Open(e.from)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		content, size = f, info.Size()
	}
	if err := t.WriteHeader(header(name, e.mode, size)); err != nil {
		return err
	}
	_, err := io.Copy(t, content)
	return err
}

// sharedLibraries asks ldd, whose search (run paths, cache, default folders)
// is not worth a second version. The loader is among them.
func sharedLibraries(binary string) ([]string, error) {
	out, err := exec.Command("ldd", binary).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") {
			return nil, nil
		}
		return nil, fmt.Errorf("ldd %s: %w: %s", binary, err, out)
	}
	return parseLdd(binary, string(out))
}

var lddLine = regexp.MustCompile(`^\s*(?:(\S+) => )?(/\S+|not found)`)

func parseLdd(binary, out string) (libs []string, err error) {
	for _, line := range strings.Split(out, "\n") {
		match := lddLine.FindStringSubmatch(line)
		if match == nil {
			continue // "linux-vdso.so.1", "statically linked"
		}
		if match[2] == "not found" {
			return nil, fmt.Errorf("%s needs %s, which is not on this machine", binary, match[1])
		}
		libs = append(libs, match[2])
	}
	return libs, nil
}

// archiveName reads the name and digest of the image in an archive of ours.
func archiveName(file string) (name string, d digest.Digest, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if err != nil {
			return "", "", fmt.Errorf("%s is no image archive: %w", file, err)
		}
		if h.Name != v1.ImageIndexFile {
			continue
		}
		var index v1.Index
		if err := json.NewDecoder(t).Decode(&index); err != nil {
			return "", "", err
		}
		if len(index.Manifests) != 1 {
			return "", "", fmt.Errorf("%s holds %d images", file, len(index.Manifests))
		}
		m := index.Manifests[0]
		return m.Annotations["io.containerd.image.name"], m.Digest, nil
	}
}
