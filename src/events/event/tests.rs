//! Events as they are written and read.

use super::*;

#[test]
fn an_event_that_was_written_is_read_as_the_same() {
    let recipe = serde_json::json!({"train": {"seed": 1}});
    let start = Start { corpus: "ptb".into(), recipe, precision: "bf16".into(), ..Start::default() };
    let measured = Measured { nats_per_token: Some(1.5), ..Measured::default() };
    let events = [
        Event::Start(start.clone()),
        Event::Resume(start),
        Event::Step(Step { step: 100, grad_norm: Some(0.1), ..Step::default() }),
        Event::Skip(Skip { reason: "the loss is NaN".into(), ..Skip::default() }),
        Event::Divergence(Divergence { action: "warn".into(), ..Divergence::default() }),
        Event::Evaluation(Epoch { epoch: 2, step: 70, best: true, ..Epoch::default() }),
        Event::Epoch(Epoch { epoch: 2, seconds: Some(0.3), best: true, ..Epoch::default() }),
        Event::Stop(Stop { step: 7, reason: "MaxSteps".into() }),
        Event::Result(Box::new(Outcome { test: measured, best_epoch: Some(3), ..Outcome::default() })),
    ];
    for event in events {
        let object = serde_json::to_value(&event).unwrap();
        assert_eq!(Event::parse(&object), Ok(Some(event)), "{object}");
    }
}

#[test]
fn the_best_row_is_the_first_by_what_decides() {
    let row = |epoch, nats, errors| Epoch {
        epoch,
        valid_nats_per_token: Some(nats),
        valid_expected_error_rate: errors,
        ..Epoch::default()
    };
    let best = |rows: &[Epoch]| Epoch::best_of(rows.iter()).map(|row| row.epoch);
    assert_eq!(best(&[row(1, 1.3, None), row(2, 1.1, None), row(3, 1.1, None)]), Some(2));
    // Of n-best lists the errors decide, whatever the references cost.
    assert_eq!(best(&[row(1, 1.3, Some(0.08)), row(2, 1.1, Some(0.06)), row(3, 1.2, Some(0.05))]), Some(3));
    let provisional = Epoch { provisional: true, ..row(3, 0.5, None) };
    let lost = Epoch { lost: true, ..row(4, 0.4, None) };
    assert_eq!(best(&[row(1, 1.3, None), provisional, lost]), Some(1));
}

#[test]
fn a_number_that_is_not_finite_is_written_as_null_and_read_as_missing() {
    let epoch = Epoch { valid_perplexity: Some(f64::INFINITY), ..Epoch::default() };
    let object = serde_json::to_value(Event::Epoch(epoch)).unwrap();
    assert!(object["valid_perplexity"].is_null() && object.get("valid_bits_per_byte").is_none());
    let Ok(Some(Event::Epoch(read))) = Event::parse(&object) else { panic!("{object}") };
    assert_eq!(read.valid_perplexity, None);
}

#[test]
fn a_kind_of_another_version_is_no_error_and_a_wrong_field_is_named() {
    assert_eq!(Event::parse(&serde_json::json!({"event": "lunch"})), Ok(None));
    let wrong = serde_json::json!({"event": "epoch", "epoch": "two", "step": 1, "tokens": 1});
    assert!(Event::parse(&wrong).unwrap_err().starts_with("epoch: "));
}
