//! Stop strings over streamed text: ends before the first one, holds back no more than might become one.

/// Passes text on until a stop string appears, however it is cut into pieces.
#[derive(Clone, Debug)]
pub(crate) struct StopStrings {
    stops: Vec<String>,
    held: String,
    found: bool,
}

impl StopStrings {
    /// Watches for any of `stops`; empty ones are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, held: String::new(), found: false }
    }

    /// Whether a stop string has appeared; nothing is passed on after it.
    pub(crate) fn found(&self) -> bool {
        self.found
    }

    /// Takes the next piece and gives the text that can be shown now.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let kept = self.held.split_off(self.safe_length());
        std::mem::replace(&mut self.held, kept)
    }

    /// What was held back, once no more text will come.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes before the longest tail that begins a stop string.
    fn safe_length(&self) -> usize {
        let begins = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let mut starts = self.held.char_indices().map(|(at, _)| at);
        starts.find(|&at| begins(&self.held[at..])).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::StopStrings;

    fn stops(list: &[&str]) -> StopStrings {
        StopStrings::new(&list.iter().map(|stop| stop.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn a_stop_string_over_several_pieces_is_cut_off_whole() {
        let mut watch = stops(&["\n\nROMEO"]);
        let shown: Vec<String> =
            ["end.", "\n", "\nRO", "ME", "O: more"].map(|piece| watch.push(piece)).into();
        assert_eq!(shown, ["end.", "", "", "", ""]);
        assert!(watch.found());
        assert_eq!(watch.push("anything") + &watch.finish(), "");
    }

    #[test]
    fn a_false_start_is_shown_as_soon_as_it_is_one() {
        let mut watch = stops(&["aab"]);
        assert_eq!(watch.push("a"), "");
        assert_eq!(watch.push("a"), "");
        assert_eq!(watch.push("a"), "a"); // the last two may still become "aab"
        assert_eq!(watch.push("c"), "aac");
        assert!(!watch.found());
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
