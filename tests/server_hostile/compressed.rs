//! Compressed requests: what a body unpacks to is bounded like any other.

use std::io::Write;

use bytes::BufMut;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use prost::Message;
use tonic::Code::{self, InvalidArgument, ResourceExhausted};

use crate::grpc::{self, Call};
use crate::raw::{exchange, post};
use crate::table::{LIMIT, Target, refuses};

const GOOD: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}"#;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn rest_bodies_are_unpacked_within_the_limit() {
    let target = Target::new(&[]).await;
    let coded = |coding: &str, body: &[u8]| post(&format!("content-encoding: {coding}\r\n"), body);
    let (bomb, good) = (vec![b' '; 32 << 20], GOOD.as_bytes());
    let packed = gzip(good);
    let over = "larger than the limit of 4194304 bytes";
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("honest gzip", coded("gzip", &packed), 200, "outputs"),
        ("honest deflate", coded("deflate", &zlib(good)), 200, "outputs"),
        ("honest gzip in capitals", coded("GZIP", &packed), 200, "outputs"),
        ("a bomb of gzip", coded("gzip", &gzip(&bomb)), 413, over),
        ("a bomb of deflate", coded("deflate", &zlib(&bomb)), 413, over),
        ("one byte above the limit", coded("gzip", &gzip(&vec![b' '; LIMIT + 1])), 413, over),
        ("a bomb in a bomb", coded("gzip", &gzip(&gzip(&bomb))), 400, "the request is not JSON"),
        ("gzip that is none", coded("gzip", good), 400, "the body is not gzip, as content-encoding says"),
        ("deflate that is none", coded("deflate", good), 400, "the body is not deflate"),
        ("gzip cut short", coded("gzip", &packed[..packed.len() - 9]), 400, ""),
        ("gzip with a wrong sum", coded("gzip", &[&packed[..packed.len() - 8], &[0; 8]].concat()), 400, ""),
        ("gzip of nothing", coded("gzip", &gzip(b"")), 400, "the request is not JSON"),
        ("nothing as gzip", coded("gzip", b""), 400, ""),
        ("gzip twice", coded("gzip, gzip", &packed), 415, "content-encoding gzip, gzip is not supported"),
    ];
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}

#[tokio::test]
async fn grpc_messages_are_unpacked_within_the_limit() {
    let target = Target::new(&[]).await;
    let coded = |coding: &str, message: &[u8]| -> Call {
        let mut body = vec![1];
        body.put_u32(message.len() as u32);
        body.extend(message);
        let mut call = grpc::infer(&[]);
        (call.body, call.headers) = (body, vec![("grpc-encoding", coding.to_string())]);
        call
    };
    let good = grpc::request(vec![grpc::x("FP32", &[1, 2])], &[8]).encode_to_vec();
    let damaged = "the message can't be unpacked: it is damaged, or not compressed as grpc-encoding says";
    let flood = [0x2a, 0].repeat((LIMIT - 1000) / 2);
    let cases: Vec<(&str, Call, Code, &str)> = vec![
        ("honest gzip", coded("gzip", &gzip(&good)), Code::Ok, ""),
        ("honest deflate", coded("deflate", &zlib(&good)), Code::Ok, ""),
        ("a bomb of gzip", coded("gzip", &gzip(&vec![0; 32 << 20])), ResourceExhausted, ""),
        ("a bomb of deflate", coded("deflate", &zlib(&vec![0; 32 << 20])), ResourceExhausted, ""),
        ("as many inputs as fit", coded("gzip", &gzip(&flood)), InvalidArgument, "more than 16384 tensors"),
        ("gzip that is none", coded("gzip", &good), InvalidArgument, damaged),
        ("gzip cut short", coded("gzip", &gzip(&good)[..20]), InvalidArgument, damaged),
        ("deflate that is none", coded("deflate", &good), InvalidArgument, damaged),
    ];
    refuses(&target, cases, grpc::exchange).await;
}
