//! Container output as lines of a CRI log:
//! `2026-11-22T16:38:45.123456789Z stdout F text`, with `P` in place of `F` when the line goes on
//! in the next record (longer than 16 KiB) or never ended.

/// The longest piece of a line in one record, as with containerd.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

/// Cuts one stream into records; holds the line that has not ended yet.
#[derive(Debug)]
pub(super) struct Framer {
    stream: &'static str,
    line: Vec<u8>,
}

impl Framer {
    pub(super) fn new(stream: &'static str) -> Self {
        Self { stream, line: Vec::new() }
    }

    /// Appends the records of `bytes` to `out`.
    pub(super) fn push(&mut self, mut bytes: &[u8], nanos: i64, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.line.len();
            let end = bytes.iter().take(room + 1).position(|&byte| byte == b'\n');
            match end {
                Some(end) => {
                    self.record(&bytes[..end], b'F', nanos, out);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > room => {
                    self.record(&bytes[..room], b'P', nanos, out);
                    bytes = &bytes[room..];
                }
                None => {
                    self.line.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// The rest at the end of the stream.
    pub(super) fn finish(&mut self, nanos: i64, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.record(&[], b'P', nanos, out);
        }
    }

    fn record(&mut self, tail: &[u8], tag: u8, nanos: i64, out: &mut Vec<u8>) {
        timestamp(nanos, out);
        out.push(b' ');
        out.extend_from_slice(self.stream.as_bytes());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.extend_from_slice(&self.line);
        out.extend_from_slice(tail);
        out.push(b'\n');
        // The memory of a long line is not kept: a shim is as small as its quietest container.
        self.line = Vec::new();
    }
}

/// RFC 3339 in UTC with nine digits of the second. `nanos` since the epoch, not before it.
fn timestamp(nanos: i64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to civil date: years are counted from March, so the leap day comes last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    for (value, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3_600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (fraction, 9, b'Z'),
    ] {
        let mut divisor = 10_i64.pow(width - 1);
        while divisor > 0 {
            out.push(b'0' + (value / divisor % 10) as u8);
            divisor /= 10;
        }
        out.push(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(pieces: &[&[u8]]) -> String {
        let (mut framer, mut out) = (Framer::new("stdout"), Vec::new());
        for piece in pieces {
            framer.push(piece, 0, &mut out);
        }
        framer.finish(0, &mut out);
        String::from_utf8(out).unwrap().replace("1970-01-01T00:00:00.000000000Z stdout ", "")
    }

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        assert_eq!(frame(&[b"a\nb", b"c\n\n"]), "F a\nF bc\nF \n");
        assert_eq!(frame(&[b"no end"]), "P no end\n");
        assert_eq!(frame(&[]), "");
    }

    #[test]
    fn long_lines_are_cut_at_16_kib() {
        let exact = [b'x'; LINE_BYTES_MAX];
        let full = String::from_utf8(exact.to_vec()).unwrap();
        assert_eq!(frame(&[&exact, b"\n"]), format!("F {full}\n"));
        assert_eq!(frame(&[&exact, b"y\n"]), format!("P {full}\nF y\n"));
        assert_eq!(frame(&[&exact[1..], b"xy\n"]), format!("P {full}\nF y\n"));
    }

    #[test]
    fn times_are_rfc_3339() {
        let mut out = Vec::new();
        timestamp(1_795_365_525_123_456_789, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "2026-11-22T16:38:45.123456789Z");
        let mut out = Vec::new();
        timestamp(951_782_400_000_000_001, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "2000-02-29T00:00:00.000000001Z");
    }
}
