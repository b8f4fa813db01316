"""Sending of alerts around a command."""

from types import SimpleNamespace

import pytest

from tasks.scorer import sending
from tests.helpers.alerts import pending, results_with_alerts
from vadcore.detection import alerts

PARAMS = SimpleNamespace(detect=SimpleNamespace(alert_hours=1))


def test_pending_alerts_are_sent_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(alerts, "call", lambda *_: None)
    results_with_alerts(tmp_path)
    with sending(PARAMS, tmp_path, "hook", print):
        pass
    assert pending(tmp_path) == []


def test_exception_stops_sending(tmp_path, monkeypatch):
    monkeypatch.setattr(alerts, "call", lambda *_: "busy")
    results_with_alerts(tmp_path)
    lines = []
    with pytest.raises(ZeroDivisionError), sending(PARAMS, tmp_path, "hook", lines.append):
        raise ZeroDivisionError
    assert len(pending(tmp_path)) == 2
    assert "2 alerts are not sent yet" in lines[-1]
