//! The compiled twin of HaRP's `harp.wire.ordinary`, which is the specification: equal to it on every input.

mod head;

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use head::{request_line, Lines, UsualResponse};

/// Cuts ordinary request heads. `special` are the lower-case names of the lines that come out one by one; a head with
/// more than `most` lines is not ordinary.
#[pyclass(frozen, module = "harp_core")]
struct RequestCutter {
    special: HashMap<Vec<u8>, Py<PyBytes>>,
    longest: usize,
    most: usize,
}

#[pymethods]
impl RequestCutter {
    #[new]
    fn new(py: Python<'_>, special: Vec<Vec<u8>>, most: usize) -> Self {
        let longest = special.iter().map(Vec::len).max().unwrap_or(0);
        let special = special.into_iter().map(|name| (name.clone(), PyBytes::new(py, &name).unbind())).collect();
        RequestCutter { special, longest, most }
    }

    /// (method, path, query, raw, special lines, plain lines) of the head that begins at `at`, or None.
    fn cut<'py>(&self, py: Python<'py>, data: &[u8], at: usize) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(data) = data.get(at..) else { return Ok(None) };
        let Some(line) = request_line(data) else { return Ok(None) };
        let special = PyList::empty(py);
        let mut plain = Vec::with_capacity(data.len());
        let mut lower = vec![0u8; self.longest];
        let mut lines = Lines::new(data, line.lines, self.most);
        while let Some(line) = lines.next_line() {
            let name = if line.name.len() <= self.longest {
                let lower = &mut lower[..line.name.len()];
                lower.copy_from_slice(line.name);
                lower.make_ascii_lowercase();
                self.special.get(&*lower)
            } else {
                None
            };
            match name {
                Some(name) => special.append((name.bind(py), PyBytes::new(py, line.value.trim_ascii())))?,
                None => plain.extend_from_slice(line.whole),
            }
        }
        let Some(end) = lines.end() else { return Ok(None) };
        let cut = (
            PyBytes::new(py, &data[..line.method]),
            PyBytes::new(py, &data[line.method + 1..line.path]),
            PyBytes::new(py, &data[line.path..line.target]),
            PyBytes::new(py, &data[line.target..end]),
            special,
            PyBytes::new(py, &plain),
        );
        cut.into_pyobject(py).map(Some)
    }
}

/// (status, what goes on to the client, body length or -2, end) of the usual response head that `data` begins with.
#[pyfunction]
fn cut_response<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let Some(head) = UsualResponse::read(data) else { return Ok(None) };
    let start = match &head.kept {
        None => PyBytes::new(py, &data[..head.end - 2]),
        Some(kept) => PyBytes::new(py, &[&data[..kept.start], &data[kept.end..head.end - 2]].concat()),
    };
    (head.status, start, head.length.unwrap_or(-2), head.end).into_pyobject(py).map(Some)
}

#[pymodule]
fn harp_core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RequestCutter>()?;
    module.add_function(wrap_pyfunction!(cut_response, module)?)
}
