"""What every lab is made of: jobs, results, claims, figures and the page."""
