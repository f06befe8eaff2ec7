"""Conformance to the Open Inference Protocol, version 2, and to Triton's extensions of it, of any server.

    python3 tests/conformance --http http://localhost:8000 --grpc localhost:8001 --model NAME

Prints a table of the points that were passed, failed or skipped; the exit code is 1 if one failed. REST needs Python's
standard library alone, gRPC the packages of requirements.txt. Most points hold for any model, which is asked with zeros;
those about values want the fixture: write it with --write-model FILE, serve it, and name it.
"""

import argparse
import sys

import fixture
import points

EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics"]
# What servers do not list as extensions.
ALSO = ["repository_index", "compression", "grpc_health", "grpc_reflection"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", metavar="URL", help="where REST is spoken")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="where gRPC is spoken")
    parser.add_argument("--model", metavar="NAME", help="default: the only one there is")
    parser.add_argument("--also", metavar="GROUP,…", default="", help=f"more points: {', '.join(ALSO)}, or all")
    parser.add_argument("--skip", metavar="TEXT", action="append", default=[], help="no points whose text has it; may come again")
    parser.add_argument("--verbose", action="store_true", help="a trace of each point that fails")
    parser.add_argument("--write-model", metavar="FILE", help="write the fixture model and leave")
    parser.add_argument("--half", action="store_true", help="with --write-model: of the half-precision types")
    arguments = parser.parse_args()
    if arguments.write_model:
        with open(arguments.write_model, "wb") as file:
            file.write(fixture.half() if arguments.half else fixture.full())
        return 0
    if not arguments.http and not arguments.grpc:
        parser.error("say where the server is: --http URL, --grpc HOST:PORT, or both")

    import rest_points, binary_points, extension_points  # noqa: E401,F401 — they register their points

    if arguments.grpc:
        import grpc_points  # noqa: F401
    target = points.Target(arguments.http, arguments.grpc, arguments.model)
    also = ALSO if arguments.also == "all" else arguments.also.split(",")
    groups = {"core", *also, *(e for e in EXTENSIONS if e in target.extensions)}
    return 1 if points.run(target, groups, arguments.skip, arguments.verbose) else 0


sys.exit(main())
