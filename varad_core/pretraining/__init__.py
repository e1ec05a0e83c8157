"""How the `embedded` tokenizer's weights were made: procedural images, a teacher, distillation."""
