//! What misses say most of the time, written out.

use super::{CacheStatus, Forward, Outcome};

impl CacheStatus {
    /// The member of an answer that is stored, and of the first one to HEAD.
    pub(super) const fn written(self) -> Option<&'static str> {
        let Self { outcome: Outcome::Forwarded(why), unshareable: None, .. } = self else { return None };
        Some(match (why, self.is_stored, self.is_collapsed) {
            (Forward::UriMiss, true, false) => "tower-readthrough;fwd=uri-miss;stored",
            (Forward::UriMiss, true, true) => "tower-readthrough;fwd=uri-miss;stored;collapsed",
            (Forward::UriMiss, false, false) => "tower-readthrough;fwd=uri-miss",
            (Forward::VaryMiss, true, false) => "tower-readthrough;fwd=vary-miss;stored",
            (Forward::VaryMiss, true, true) => "tower-readthrough;fwd=vary-miss;stored;collapsed",
            (Forward::Miss, true, false) => "tower-readthrough;fwd=miss;stored",
            (Forward::Miss, true, true) => "tower-readthrough;fwd=miss;stored;collapsed",
            (Forward::Stale, true, false) => "tower-readthrough;fwd=stale;stored",
            (Forward::Stale, true, true) => "tower-readthrough;fwd=stale;stored;collapsed",
            (Forward::Request, true, false) => "tower-readthrough;fwd=request;stored",
            (Forward::Request, true, true) => "tower-readthrough;fwd=request;stored;collapsed",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_out_is_what_would_be_said() {
        let reasons = [
            Forward::UriMiss,
            Forward::VaryMiss,
            Forward::Miss,
            Forward::Stale,
            Forward::Bypass,
            Forward::Request,
        ];
        for why in reasons {
            for (is_stored, is_collapsed) in [(false, false), (false, true), (true, false), (true, true)] {
                let status = CacheStatus { is_collapsed, ..CacheStatus::forwarded(why).stored(is_stored) };
                let said = status.serialize().unwrap();
                assert_eq!(status.to_value(), said);
            }
        }
    }
}
