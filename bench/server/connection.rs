//! A load client's connection: prebuilt requests, and only as much of the answer read as proves it right. Every answer
//! is compared with raw ONNX Runtime's.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http2::Http2;
use crate::model::{Form, Model, VARIANTS, grpc_request, http_request};

/// Who is asked, and what the right answers are.
#[derive(Clone)]
pub struct Target {
    pub port: u16,
    /// The model's name at the server.
    pub name: &'static str,
    pub model: Model,
    pub form: Form,
    /// By variant.
    pub expected: Arc<Vec<Vec<f32>>>,
}

pub struct Connection {
    stream: TcpStream,
    wire: Wire,
    input: BytesMut,
    output: Vec<u8>,
    answer: Answer,
}

enum Wire {
    Http { request: Vec<u8> },
    Grpc(Http2),
}

impl Connection {
    pub async fn open(target: &Target, variant: usize) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", target.port)).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let variant = variant % VARIANTS;
        let mut output = Vec::new();
        let wire = match target.form {
            Form::Grpc => {
                let message = grpc_request(target.model, target.name, variant);
                Wire::Grpc(Http2::open("/inference.GRPCInferenceService/ModelInfer", message, &mut output))
            }
            form => Wire::Http { request: http_request(target.model, target.name, form, variant) },
        };
        let answer =
            Answer { form: target.form, model: target.model, expected: target.expected.clone(), variant };
        Ok(Self { stream, wire, input: BytesMut::new(), output, answer })
    }

    /// One request and its answer. An error ends the connection's use, unless it is a status.
    pub async fn exchange(&mut self) -> Checked {
        if let Wire::Grpc(http2) = &mut self.wire {
            // The server's windows, as any client has to mind them.
            while !http2.may_send() {
                read(&mut self.stream, &mut self.input).await?;
                http2.receive(&mut self.input, &mut self.output)?;
            }
        }
        match &mut self.wire {
            Wire::Http { request } => self.stream.write_all(request).await?,
            Wire::Grpc(http2) => http2.send(&mut self.output),
        }
        loop {
            if !self.output.is_empty() {
                self.stream.write_all(&self.output).await?;
                self.output.clear();
            }
            read(&mut self.stream, &mut self.input).await?;
            match &mut self.wire {
                Wire::Http { .. } => {
                    if let Some((length, checked)) = self.answer.http(&self.input)? {
                        self.input.advance(length);
                        return checked;
                    }
                }
                Wire::Grpc(http2) => {
                    if http2.receive(&mut self.input, &mut self.output)? {
                        return self.answer.grpc(http2.message());
                    }
                }
            }
        }
    }
}

async fn read(stream: &mut TcpStream, input: &mut BytesMut) -> Checked {
    input.reserve(16 << 10);
    match stream.read_buf(input).await? {
        0 => Err(Failure::Broken("the server closed the connection".into())),
        _ => Ok(()),
    }
}

#[derive(Debug)]
pub enum Failure {
    /// Another HTTP status than 200.
    Status(u16),
    /// An answer that is not raw ONNX Runtime's.
    Wrong(String),
    Broken(String),
}

type Checked = Result<(), Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status(status) => write!(f, "status {status}"),
            Failure::Wrong(what) => write!(f, "a wrong answer: {what}"),
            Failure::Broken(what) => f.write_str(what),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Broken(error.to_string())
    }
}

struct Answer {
    form: Form,
    model: Model,
    expected: Arc<Vec<Vec<f32>>>,
    variant: usize,
}

impl Answer {
    /// A whole HTTP/1.1 answer's length, and whether it is right; None: more is to come.
    fn http(&self, input: &[u8]) -> Result<Option<(usize, Checked)>, Failure> {
        let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
        let broken = |what: &str| Failure::Broken(format!("{what}: {:?}", String::from_utf8_lossy(input)));
        let head = std::str::from_utf8(&input[..end]).map_err(|_| broken("no header"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse::<u16>().ok());
        let status = status.ok_or_else(|| broken("no status"))?;
        let length = lines.find_map(|l| {
            let (name, value) = l.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.ok_or_else(|| broken("no content-length"))?;
        let whole = end + 4 + length;
        let Some(body) = input.get(end + 4..whole) else { return Ok(None) };
        let checked = match (status, self.form) {
            (200, Form::Json) => self.json(body),
            // Binary data is the body's end, in the order of the outputs.
            (200, _) => body.len().checked_sub(self.expected[self.variant].len() * 4).map_or_else(
                || Err(Failure::Wrong(format!("only {} bytes", body.len()))),
                |at| self.floats([&body[at..]].into_iter()),
            ),
            (status, _) => Err(Failure::Status(status)),
        };
        Ok(Some((whole, checked)))
    }

    /// Numbers are read by hand: what serde would build costs more than the server.
    fn json(&self, body: &[u8]) -> Checked {
        let wrong = |what: &str| Failure::Wrong(format!("{what}: {}", String::from_utf8_lossy(body)));
        let mut expected = self.expected[self.variant].iter();
        let mut rest = body;
        for _ in self.model.outputs() {
            let key = b"\"data\":";
            let at = rest.windows(key.len()).position(|w| w == key).ok_or_else(|| wrong("no data"))?;
            rest = &rest[at + key.len()..];
            let end = rest.iter().position(|b| *b == b']').ok_or_else(|| wrong("no end of data"))?;
            let numbers = std::str::from_utf8(&rest[..end]).map_err(|_| wrong("no text"))?;
            for number in numbers.trim_start().trim_start_matches('[').split(',') {
                let (Ok(value), Some(expected)) = (number.trim().parse::<f32>(), expected.next()) else {
                    return Err(wrong("other numbers"));
                };
                close(value, *expected)?;
            }
        }
        match expected.next() {
            None => Ok(()),
            Some(_) => Err(wrong("too few numbers")),
        }
    }

    /// The message's raw_output_contents (field 6).
    fn grpc(&self, message: Option<&[u8]>) -> Checked {
        // Without one it is an error; its text is packed by HPACK, which this client does not read.
        let message = message.ok_or_else(|| Failure::Wrong("a gRPC error".into()))?;
        let broken = || Failure::Broken("not a ModelInferResponse".into());
        let (mut rest, mut outputs) = (message, [&[][..]; 4]);
        let mut count = 0;
        while !rest.is_empty() {
            let tag = prost::encoding::decode_varint(&mut rest).map_err(|_| broken())?;
            let length = prost::encoding::decode_varint(&mut rest).map_err(|_| broken())? as usize;
            let (field, after) = rest.split_at_checked(length).ok_or_else(broken)?;
            rest = after;
            if tag == (6 << 3 | 2) {
                *outputs.get_mut(count).ok_or_else(broken)? = field;
                count += 1;
            }
        }
        self.floats(outputs.into_iter())
    }

    fn floats<'a>(&self, outputs: impl Iterator<Item = &'a [u8]>) -> Checked {
        let mut expected = self.expected[self.variant].iter();
        for bytes in outputs.flat_map(|o| o.chunks_exact(4)) {
            let value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            close(value, *expected.next().ok_or_else(|| Failure::Wrong("too many numbers".into()))?)?;
        }
        match expected.next() {
            None => Ok(()),
            Some(_) => Err(Failure::Wrong("too few numbers".into())),
        }
    }
}

fn close(value: f32, expected: f32) -> Checked {
    match (value - expected).abs() <= 1e-5 + 1e-4 * expected.abs() {
        true => Ok(()),
        false => Err(Failure::Wrong(format!("{value} instead of {expected}"))),
    }
}
