"""An API server, as much as a gateway needs, that tells of one pod on this machine: gateway.py KUBECONFIG MODEL…

Each model is a ModelRoute whose one pod is 127.0.0.1. It writes KUBECONFIG, which leads to it, and serves until it is killed.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KUBECONFIG, MODELS = sys.argv[1], sys.argv[2:]


def metadata(name):
    labels = {"deployment": name, "set": "r1", "role": "serve"}
    return {
        "name": name, "namespace": "conformance", "uid": name, "generation": 1, "resourceVersion": "1",
        "labels": {f"modelwright.dev/{key}": value for key, value in labels.items()},
    }


LISTS = {
    "modelroutes": [
        {
            "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelRoute", "metadata": metadata(name),
            "spec": {"mode": "Forward", "backends": [{"revision": 1, "weight": 100}]},
        }
        for name in MODELS
    ],
    "pods": [
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(name),
            "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        }
        for name in MODELS
    ],
}


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        items = LISTS[path.rsplit("/", 1)[-1]]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if "watch=" in query:
            threading.Event().wait()  # nothing ever changes
        answer = {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
server.daemon_threads = True
config = {
    "apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
}
with open(KUBECONFIG, "w") as file:
    json.dump(config, file)
server.serve_forever()
