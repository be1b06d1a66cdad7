//! The grammar of ordinary HTTP/1.1 heads (RFC 9112), as the expressions of `harp.wire.ordinary` have it.

use std::ops::Range;

const METHODS: [&[u8]; 16] = [
    b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND", b"PROPPATCH", b"MKCOL", b"COPY",
    b"MOVE", b"LOCK", b"UNLOCK", b"REPORT", b"SEARCH",
];

const TOKEN: u8 = 1; // of names; without "_"
const TEXT: u8 = 2; // of values
const PATH: u8 = 4;
const QUERY: u8 = 8;

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        let mut class = 0;
        if value.is_ascii_alphanumeric() {
            class |= TOKEN | PATH | QUERY;
        }
        if matches!(value, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'^' | b'.' | b'`' | b'|' | b'~' | b'-') {
            class |= TOKEN;
        }
        if matches!(
            value,
            b'/' | b'.' | b'_' | b'~' | b'%' | b'=' | b'&' | b'+' | b',' | b':' | b';' | b'@' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b'-'
        ) {
            class |= PATH | QUERY;
        }
        if matches!(value, b'?' | b'[' | b']' | b'|') {
            class |= QUERY;
        }
        if value == b'\t' || (value >= b' ' && value != 0x7f) {
            class |= TEXT;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

static CLASSES: [u8; 256] = classes();

/// Where the run of bytes of this class that begins at `at` ends; None when the data does before.
fn run(data: &[u8], at: usize, class: u8) -> Option<usize> {
    data[at..].iter().position(|&byte| CLASSES[usize::from(byte)] & class == 0).map(|size| at + size)
}

/// Ends of the parts of a request line: "METHOD path?query HTTP/1.1".
pub struct RequestLine {
    pub method: usize,
    pub path: usize,
    pub target: usize,
    pub lines: usize, // where the header lines begin
}

pub fn request_line(data: &[u8]) -> Option<RequestLine> {
    let method = data.iter().take(10).position(|&byte| byte == b' ')?;
    if !METHODS.contains(&&data[..method]) || data.get(method + 1) != Some(&b'/') {
        return None;
    }
    let path = run(data, method + 1, PATH)?;
    let target = if data[path] == b'?' { run(data, path + 1, QUERY)? } else { path };
    data[target..].starts_with(b" HTTP/1.1\r\n").then_some(RequestLine { method, path, target, lines: target + 11 })
}

/// One header line.
pub struct Line<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub whole: &'a [u8], // with its end
    pub start: usize,
}

/// The header lines from a position on, up to the empty one; not more than `most`.
pub struct Lines<'a> {
    data: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Lines<'a> {
    pub fn new(data: &'a [u8], at: usize, most: usize) -> Self {
        Lines { data, at, left: most }
    }

    pub fn next_line(&mut self) -> Option<Line<'a>> {
        let (data, start) = (self.data, self.at);
        let colon = run(data, start, TOKEN)?;
        if self.left == 0 || colon == start || data[colon] != b':' {
            return None;
        }
        let end = run(data, colon + 1, TEXT)?;
        if !data[end..].starts_with(b"\r\n") {
            return None;
        }
        self.left -= 1;
        self.at = end + 2;
        Some(Line { name: &data[start..colon], value: &data[colon + 1..end], whole: &data[start..end + 2], start })
    }

    /// Where the head ends, if it is the empty line that follows.
    pub fn end(&self) -> Option<usize> {
        self.data[self.at..].starts_with(b"\r\n").then_some(self.at + 2)
    }
}

/// The head of a final response that says at most its length and that the connection is kept.
pub struct UsualResponse {
    pub status: u16,
    pub length: Option<i64>,
    pub dropped: Vec<Range<usize>>, // lines that do not go on: Connection and X-Request-Id, in order
    pub end: usize,
}

impl UsualResponse {
    pub fn read(data: &[u8]) -> Option<Self> {
        let code = data.strip_prefix(b"HTTP/1.1 ")?.get(..4)?;
        if !matches!(code[0], b'2'..=b'5') || !code[..3].iter().all(u8::is_ascii_digit) || code[3] != b' ' {
            return None;
        }
        let status = code[..3].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        let end = run(data, 13, TEXT)?;
        if !data[end..].starts_with(b"\r\n") {
            return None;
        }
        let (mut length, mut kept, mut dropped) = (None, false, Vec::new());
        let mut lines = Lines::new(data, end + 2, usize::MAX);
        while let Some(line) = lines.next_line() {
            if !says_framing(line.name) {
                if line.name.eq_ignore_ascii_case(b"x-request-id") {
                    dropped.push(line.start..line.start + line.whole.len());
                }
                continue;
            }
            if length.is_none() && matches!(line.name, b"Content-Length" | b"content-length" | b"Content-length" | b"content-Length") {
                length = Some(number(unpadded(line.value))?);
            } else if !kept
                && matches!(line.name, b"Connection" | b"connection")
                && matches!(unpadded(line.value), b"keep-alive" | b"Keep-Alive" | b"Keep-alive" | b"keep-Alive")
            {
                kept = true;
                dropped.push(line.start..line.start + line.whole.len());
            } else {
                return None;
            }
        }
        let end = lines.end()?;
        (length.is_none() || status != 204).then_some(UsualResponse { status, length, dropped, end })
    }
}

/// May this name be one that decides about framing?
fn says_framing(name: &[u8]) -> bool {
    if !matches!(name[0].to_ascii_lowercase(), b'c' | b'k' | b'p' | b't' | b'u') {
        return false;
    }
    let rest = &name[1..];
    let begins = |with: &[u8]| rest.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    begins(b"ontent-length")
        || begins(b"onnection")
        || begins(b"eep-alive")
        || begins(b"roxy-")
        || begins(b"ransfer-encoding")
        || rest.eq_ignore_ascii_case(b"e")
        || rest.eq_ignore_ascii_case(b"pgrade")
}

/// Without blanks before it.
fn unpadded(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    &value[start..]
}

/// A number as everybody writes it, of 18 digits at most.
fn number(value: &[u8]) -> Option<i64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) || (value[0] == b'0' && value.len() > 1) {
        return None;
    }
    Some(value.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}
