"""Sinks of the line: folder, CSV, webhook, MQTT, OPC UA; each takes decisions from its outbox, at least once and in order."""
