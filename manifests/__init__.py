"""What is written down: records, schemas, durable writes, sealed files, verification. Never imports torch."""
