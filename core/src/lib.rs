//! The compiled twin of HaRP's `harp.wire.ordinary`, which is the specification: equal to it on every input.

mod head;
mod path;

use std::collections::HashMap;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use head::{request_line, Lines, UsualResponse};
use path::ExAppPath;

/// What a special line is about: what its client repeats from request to request, or one request alone.
#[derive(Clone, Copy, PartialEq)]
enum About {
    Said,
    Connection,
    ContentLength,
    TransferEncoding,
    Upgrade,
    RequestId,
    Host,
}

impl About {
    fn of(name: &[u8]) -> Self {
        match name {
            b"connection" => About::Connection,
            b"content-length" => About::ContentLength,
            b"transfer-encoding" => About::TransferEncoding,
            b"upgrade" => About::Upgrade,
            b"x-request-id" => About::RequestId,
            b"host" => About::Host,
            _ => About::Said,
        }
    }
}

/// Cuts ordinary request heads. `special` are the lower-case names of the lines that anybody looks at; a head with more
/// than `most` lines is not ordinary, and neither is one that says a thing twice or something rare about connection or
/// body.
#[pyclass(frozen, module = "harp_core")]
struct RequestCutter {
    special: HashMap<Vec<u8>, (usize, About)>,
    longest: usize,
    most: usize,
}

#[pymethods]
impl RequestCutter {
    #[new]
    fn new(special: Vec<Vec<u8>>, most: usize) -> PyResult<Self> {
        let longest = special.iter().map(Vec::len).max().unwrap_or(0);
        let mut names = special;
        let own: [&[u8]; 5] = [b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"x-request-id"];
        for name in own {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_vec());
            }
        }
        if names.len() > 64 {
            return Err(PyValueError::new_err("more than 64 special names"));
        }
        let longest = names.iter().map(Vec::len).max().unwrap_or(longest);
        let special =
            names.into_iter().enumerate().map(|(at, name)| { let about = About::of(&name); (name, (at, about)) }).collect();
        Ok(RequestCutter { special, longest, most })
    }

    /// (method, path, query, raw, said, request id, length, keep alive, plain) of the head that begins at `at`, or None.
    fn cut<'py>(&self, py: Python<'py>, data: &[u8], at: usize) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(data) = data.get(at..) else { return Ok(None) };
        let Some(line) = request_line(data) else { return Ok(None) };
        let mut said = Vec::with_capacity(1024);
        let mut plain = Vec::with_capacity(1024);
        let mut lower = [0u8; 64];
        let (mut seen, mut host, mut length, mut keep_alive) = (0u64, false, NO_LENGTH, true);
        let mut request_id: &[u8] = b"";
        let mut lines = Lines::new(data, line.lines, self.most);
        while let Some(line) = lines.next_line() {
            let size = line.name.len();
            let special = if size <= self.longest && size <= lower.len() {
                lower[..size].copy_from_slice(line.name);
                lower[..size].make_ascii_lowercase();
                self.special.get(&lower[..size])
            } else {
                None
            };
            let Some(&(index, about)) = special else {
                plain.extend_from_slice(line.whole);
                continue;
            };
            if seen & (1 << index) != 0 {
                return Ok(None);
            }
            seen |= 1 << index;
            let value = line.value.trim_ascii();
            match about {
                About::Connection if value.eq_ignore_ascii_case(b"keep-alive") => {}
                About::Connection if value.eq_ignore_ascii_case(b"close") => keep_alive = false,
                About::ContentLength if length == NO_LENGTH => match digits(value) {
                    Some(number) => length = number,
                    None => return Ok(None),
                },
                About::TransferEncoding if length == NO_LENGTH && value.eq_ignore_ascii_case(b"chunked") => {
                    length = CHUNKED;
                }
                About::RequestId => request_id = value,
                About::Said | About::Host => {
                    host |= about == About::Host;
                    said.extend_from_slice(&lower[..size]);
                    said.extend_from_slice(b": ");
                    said.extend_from_slice(value);
                    said.extend_from_slice(b"\r\n");
                }
                _ => return Ok(None),
            }
        }
        let Some(end) = lines.end() else { return Ok(None) };
        if !host {
            return Ok(None);
        }
        let cut = (
            PyBytes::new(py, &data[..line.method]),
            PyBytes::new(py, &data[line.method + 1..line.path]),
            PyBytes::new(py, &data[line.path..line.target]),
            PyBytes::new(py, &data[line.target..end]),
            PyBytes::new(py, &said),
            PyBytes::new(py, request_id),
            length,
            keep_alive,
            PyBytes::new(py, &plain),
        );
        cut.into_pyobject(py).map(Some)
    }
}

const CHUNKED: i64 = -1;
const NO_LENGTH: i64 = -2;

/// A number of at most 18 digits, leading zeros allowed.
fn digits(value: &[u8]) -> Option<i64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// (id, the same in lower case, what is removed, target) of an ordinary path with an ExApp's id, or None.
#[pyfunction]
fn cut_path<'py>(py: Python<'py>, path: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let Some(cut) = ExAppPath::read(path) else { return Ok(None) };
    let Ok(name) = std::str::from_utf8(&path[cut.name..cut.prefix]) else { return Ok(None) };
    let target: &[u8] = if cut.prefix == path.len() { b"/" } else { &path[cut.prefix..] };
    let lower = name.to_ascii_lowercase();
    let parts = (name, lower, PyBytes::new(py, &path[..cut.prefix]), PyBytes::new(py, target));
    parts.into_pyobject(py).map(Some)
}

/// (status, what goes on to the client, body length or -2, end) of the usual response head that `data` begins with.
#[pyfunction]
fn cut_response<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let Some(head) = UsualResponse::read(data) else { return Ok(None) };
    let lines = data[..head.end - 2].len() - head.dropped.iter().map(|line| line.len()).sum::<usize>();
    let start = PyBytes::new_with(py, lines, |start| {
        let (mut from, mut to) = (0, 0);
        for line in head.dropped.iter().chain(std::iter::once(&(head.end - 2..head.end))) {
            let piece = &data[from..line.start];
            start[to..to + piece.len()].copy_from_slice(piece);
            (from, to) = (line.end, to + piece.len());
        }
        Ok(())
    })?;
    (head.status, start, head.length.unwrap_or(-2), head.end).into_pyobject(py).map(Some)
}

#[pymodule]
fn harp_core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RequestCutter>()?;
    module.add_function(wrap_pyfunction!(cut_path, module)?)?;
    module.add_function(wrap_pyfunction!(cut_response, module)?)
}
