//! The grammar of ordinary paths with an ExApp's id, as the expressions of `harp.wire.ordinary` have it.

/// Where the parts of such a path end; `name` is where the id begins.
pub struct ExAppPath {
    pub name: usize,
    pub prefix: usize,
}

const EXAPPS: &[u8] = b"/exapps/";
const LONGEST_ID: usize = 64;

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b',' | b'=' | b':' | b'@' | b'-')
}

/// Where the run of such bytes that begins at `at` ends.
fn run(data: &[u8], at: usize, fits: impl Fn(u8) -> bool) -> usize {
    data[at..].iter().position(|&byte| !fits(byte)).map_or(data.len(), |size| at + size)
}

impl ExAppPath {
    pub fn read(path: &[u8]) -> Option<Self> {
        let mut at = 0;
        while !path[at..].starts_with(EXAPPS) {
            if path.get(at) != Some(&b'/') {
                return None;
            }
            let end = run(path, at + 1, |byte| is_word(byte) || byte == b'-');
            if end == at + 1 {
                return None;
            }
            at = end;
        }
        let name = at + EXAPPS.len();
        let prefix = run(path, name, |byte| is_word(byte) || byte == b'-' || byte == b'.');
        if !path.get(name).is_some_and(|&first| is_word(first)) || prefix - name > LONGEST_ID {
            return None;
        }
        has_ordinary_segments(&path[prefix..]).then_some(ExAppPath { name, prefix })
    }
}

/// Segments with dots neither first nor last, the last one perhaps empty.
fn has_ordinary_segments(target: &[u8]) -> bool {
    let mut at = 0;
    while at < target.len() {
        if target[at] != b'/' {
            return false;
        }
        at += 1;
        if at == target.len() {
            return true;
        }
        loop {
            let end = run(target, at, is_plain);
            if end == at {
                return false;
            }
            at = run(target, end, |byte| byte == b'.');
            if at == end {
                break;
            }
        }
    }
    true
}
