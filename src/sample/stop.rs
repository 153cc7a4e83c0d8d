//! Stop strings over streamed bytes: ends before the first one, holds back no more than might become one.

/// Passes text on until a stop string appears, however it is cut into pieces.
#[derive(Clone, Debug)]
pub(crate) struct StopStrings {
    stops: Vec<Vec<u8>>,
    held: Vec<u8>,
    found: bool,
}

impl StopStrings {
    /// Watches for any of `stops`; empty ones are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        let stops =
            stops.iter().filter(|stop| !stop.is_empty()).map(|stop| stop.clone().into_bytes()).collect();
        Self { stops, held: Vec::new(), found: false }
    }

    /// Whether a stop string has appeared; nothing is passed on after it.
    pub(crate) fn found(&self) -> bool {
        self.found
    }

    /// Takes the next piece and gives the bytes that can be shown now.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.found {
            return Vec::new();
        }
        self.held.extend_from_slice(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| find(&self.held, stop)).min() {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let kept = self.held.split_off(self.safe_length());
        std::mem::replace(&mut self.held, kept)
    }

    /// What was held back, once no more text will come.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Bytes before the longest tail that begins a stop string.
    fn safe_length(&self) -> usize {
        let begins = |tail: &[u8]| self.stops.iter().any(|stop| stop.starts_with(tail));
        (0..self.held.len()).find(|&at| begins(&self.held[at..])).unwrap_or(self.held.len())
    }
}

fn find(text: &[u8], stop: &[u8]) -> Option<usize> {
    text.windows(stop.len()).position(|window| window == stop)
}

#[cfg(test)]
mod tests {
    use super::StopStrings;

    /// Stop strings over text, as text.
    struct Watch(StopStrings);

    impl Watch {
        fn push(&mut self, piece: &str) -> String {
            String::from_utf8(self.0.push(piece.as_bytes())).unwrap()
        }

        fn finish(&mut self) -> String {
            String::from_utf8(self.0.finish()).unwrap()
        }
    }

    fn stops(list: &[&str]) -> Watch {
        Watch(StopStrings::new(&list.iter().map(|stop| stop.to_string()).collect::<Vec<_>>()))
    }

    #[test]
    fn a_stop_string_over_several_pieces_is_cut_off_whole() {
        let mut watch = stops(&["\n\nROMEO"]);
        let shown: Vec<String> =
            ["end.", "\n", "\nRO", "ME", "O: more"].map(|piece| watch.push(piece)).into();
        assert_eq!(shown, ["end.", "", "", "", ""]);
        assert!(watch.0.found());
        assert_eq!(watch.push("anything") + &watch.finish(), "");
    }

    #[test]
    fn a_false_start_is_shown_as_soon_as_it_is_one() {
        let mut watch = stops(&["aab"]);
        assert_eq!(watch.push("a"), "");
        assert_eq!(watch.push("a"), "");
        assert_eq!(watch.push("a"), "a"); // the last two may still become "aab"
        assert_eq!(watch.push("c"), "aac");
        assert!(!watch.0.found());
    }

    #[test]
    fn the_earliest_of_several_stops_counts() {
        let mut watch = stops(&["yz", "x"]);
        assert_eq!(watch.push("wxyz"), "w");
    }

    #[test]
    fn what_was_held_at_the_end_is_not_lost() {
        let mut watch = stops(&["été"]);
        assert_eq!(watch.push("un ét"), "un ");
        assert_eq!(watch.finish(), "ét");
    }

    #[test]
    fn without_stops_nothing_is_held() {
        assert_eq!(stops(&[""]).push("text"), "text");
    }
}
