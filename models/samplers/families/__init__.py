"""What samplers that go through noise levels alike have in common: fields, defaults and refusals."""
