"""What this service offers: its operations, their JSON Schemas, the AsyncAPI document."""
