"""What the answers to held-out seeds say: each model's figures, what separates models, whether the student is good enough to ship."""
