//! The client's half of HTTP/2 for one unary call at a time: fixed headers, prebuilt data, frames counted rather than
//! decoded. The `h2` crate costs as much as the server that is to be measured.

use bytes::{Buf, BytesMut};

use crate::connection::Failure;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const MAX_WINDOW: u32 = (1 << 31) - 1;

pub struct Http2 {
    path: &'static str,
    /// The gRPC message, with its prefix.
    request: Vec<u8>,
    /// Of the call that is running or comes next.
    stream: u32,
    /// What the server lets us send on the connection, and on a stream that is new.
    window: i64,
    stream_window: i64,
    greeted: bool,
    /// Data received since the last WINDOW_UPDATE of ours.
    unclaimed: u32,
    data: Vec<u8>,
}

impl Http2 {
    pub fn open(path: &'static str, request: Vec<u8>, output: &mut Vec<u8>) -> Self {
        assert!(request.len() <= 16 << 10, "one frame");
        output.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let settings = [(2u16, 0u32), (4, MAX_WINDOW)]; // no push; the initial window
        let payload: Vec<u8> =
            settings.iter().flat_map(|(k, v)| [&k.to_be_bytes()[..], &v.to_be_bytes()].concat()).collect();
        frame(output, SETTINGS, 0, 0, &payload);
        frame(output, WINDOW_UPDATE, 0, 0, &(MAX_WINDOW - 65_535).to_be_bytes());
        Self {
            path,
            request,
            stream: 1,
            window: 65_535,
            stream_window: 65_535,
            greeted: false,
            unclaimed: 0,
            data: Vec::new(),
        }
    }

    pub fn may_send(&self) -> bool {
        let length = self.request.len() as i64;
        // The very first call may go before the server's settings have come: the window is large enough.
        self.window >= length && self.stream_window >= length
    }

    /// The call as frames. The first one's headers fill the server's HPACK table, later ones refer to it, as gRPC's
    /// libraries do.
    pub fn send(&mut self, output: &mut Vec<u8>) {
        let mut headers = vec![0x83, 0x86]; // :method POST, :scheme http
        if self.greeted {
            headers.extend([0xc1, 0xc0, 0xbf, 0xbe]);
        } else {
            literal(&mut headers, &[0x44], self.path); // :path
            literal(&mut headers, &[0x41], "localhost"); // :authority
            literal(&mut headers, &[0x5f], "application/grpc"); // content-type
            literal(&mut headers, &[0x40, 2, b't', b'e'], "trailers");
            self.greeted = true;
        }
        frame(output, HEADERS, END_HEADERS, self.stream, &headers);
        frame(output, DATA, END_STREAM, self.stream, &self.request);
        self.window -= self.request.len() as i64;
        self.data.clear();
    }

    /// Takes whole frames; true: the call has ended. What has to be sent for it is put into `output`.
    pub fn receive(&mut self, input: &mut BytesMut, output: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut ended = false;
        while let Some((head, rest)) = input.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & MAX_WINDOW;
            let Some(payload) = rest.get(..length) else { break };
            let number =
                |at: usize| payload.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
            match kind {
                DATA => {
                    let padding = if flags & PADDED == 0 { 0 } else { payload[0] as usize + 1 };
                    let start = usize::from(padding > 0);
                    self.data.extend(&payload[start..length - padding + start]);
                    self.unclaimed += length as u32;
                    ended |= flags & END_STREAM != 0;
                }
                HEADERS => ended |= flags & END_STREAM != 0,
                SETTINGS if flags & ACK == 0 => {
                    for entry in payload.chunks_exact(6).filter(|e| e[..2] == [0, 4]) {
                        self.stream_window =
                            i64::from(u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]));
                    }
                    frame(output, SETTINGS, ACK, 0, &[]);
                }
                PING if flags & ACK == 0 => frame(output, PING, ACK, 0, payload),
                WINDOW_UPDATE if stream == 0 => self.window += i64::from(number(0).unwrap_or(0)),
                RST_STREAM | GOAWAY => {
                    let at = if kind == GOAWAY { 4 } else { 0 };
                    let what = format!("HTTP/2 frame {kind}, error {:?}", number(at));
                    return Err(Failure::Broken(what));
                }
                _ => {}
            }
            input.advance(9 + length);
        }
        if self.unclaimed >= 1 << 20 {
            frame(output, WINDOW_UPDATE, 0, 0, &self.unclaimed.to_be_bytes());
            self.unclaimed = 0;
        }
        if ended {
            self.stream += 2;
        }
        Ok(ended)
    }

    /// The call's answer; None: there is only a status.
    pub fn message(&self) -> Option<&[u8]> {
        let (prefix, message) = self.data.split_at_checked(5)?;
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        (prefix[0] == 0 && message.len() == length).then_some(message)
    }
}

fn frame(output: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    output.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    output.extend([kind, flags]);
    output.extend(stream.to_be_bytes());
    output.extend(payload);
}

/// A header that enters the table.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    assert!(value.len() < 127, "one byte of length");
    block.extend(name);
    block.push(value.len() as u8);
    block.extend(value.as_bytes());
}
