"""What this service offers: its operations, their JSON Schemas and the AsyncAPI document."""
